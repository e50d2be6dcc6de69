//! Controller.Status

use kevel_client::convert::{any_wire, need_text, time_wire};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{ControllerStatusRequest, ControllerStatusResponse};

pub(super) async fn status(
    controllers: super::Controllers,
    scope: Scope,
    request: ControllerStatusRequest,
) -> Result<ControllerStatusResponse> {
    let controller = super::pick(&controllers, &request.sandboxer)?;
    need_text("sandbox_id", &request.sandbox_id)?;
    let status = controller.status(&scope, &request.sandbox_id, request.verbose).await?;
    Ok(ControllerStatusResponse {
        sandbox_id: request.sandbox_id,
        pid: status.pid,
        state: status.state,
        info: status.info,
        created_at: status.created_at.and_then(time_wire),
        exited_at: status.exited_at.and_then(time_wire),
        extra: status.extra.map(any_wire),
        address: status.address,
        version: status.version,
    })
}
