//! Controller.Platform

use kevel_client::convert::{need_text, types};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{ControllerPlatformRequest, ControllerPlatformResponse};

pub(super) async fn platform(
    controllers: super::Controllers,
    scope: Scope,
    request: ControllerPlatformRequest,
) -> Result<ControllerPlatformResponse> {
    let controller = super::pick(&controllers, &request.sandboxer)?;
    need_text("sandbox_id", &request.sandbox_id)?;
    let platform = controller.platform(&scope, &request.sandbox_id).await?;
    Ok(ControllerPlatformResponse { platform: Some(types::platform_wire(platform)) })
}
