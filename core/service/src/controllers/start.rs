//! Controller.Start

use kevel_client::convert::{any_wire, need_text, time_wire};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{ControllerStartRequest, ControllerStartResponse};

pub(super) async fn start(
    controllers: super::Controllers,
    scope: Scope,
    request: ControllerStartRequest,
) -> Result<ControllerStartResponse> {
    let controller = super::pick(&controllers, &request.sandboxer)?;
    need_text("sandbox_id", &request.sandbox_id)?;
    let started = controller.start(&scope, &request.sandbox_id).await?;
    Ok(ControllerStartResponse {
        sandbox_id: request.sandbox_id,
        pid: started.pid,
        created_at: started.created_at.and_then(time_wire),
        labels: started.labels,
        address: started.address,
        version: started.version,
        spec: started.spec.map(any_wire),
    })
}
