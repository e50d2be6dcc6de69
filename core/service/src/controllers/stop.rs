//! Controller.Stop

use std::time::Duration;

use kevel_client::convert::need_text;
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{ControllerStopRequest, ControllerStopResponse};

pub(super) async fn stop(
    controllers: super::Controllers,
    scope: Scope,
    request: ControllerStopRequest,
) -> Result<ControllerStopResponse> {
    let controller = super::pick(&controllers, &request.sandboxer)?;
    need_text("sandbox_id", &request.sandbox_id)?;
    let timeout = Duration::from_secs(request.timeout_secs.into());
    controller.stop(&scope, &request.sandbox_id, timeout).await?;
    Ok(ControllerStopResponse {})
}
