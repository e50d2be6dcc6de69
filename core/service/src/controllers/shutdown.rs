//! Controller.Shutdown

use kevel_client::convert::need_text;
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{ControllerShutdownRequest, ControllerShutdownResponse};

pub(super) async fn shutdown(
    controllers: super::Controllers,
    scope: Scope,
    request: ControllerShutdownRequest,
) -> Result<ControllerShutdownResponse> {
    let controller = super::pick(&controllers, &request.sandboxer)?;
    need_text("sandbox_id", &request.sandbox_id)?;
    controller.shutdown(&scope, &request.sandbox_id).await?;
    Ok(ControllerShutdownResponse {})
}
