//! Controller.Update

use kevel_client::convert::{need_text, sandbox};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{ControllerUpdateRequest, ControllerUpdateResponse};

pub(super) async fn update(
    controllers: super::Controllers,
    scope: Scope,
    request: ControllerUpdateRequest,
) -> Result<ControllerUpdateResponse> {
    let controller = super::pick(&controllers, &request.sandboxer)?;
    need_text("sandbox_id", &request.sandbox_id)?;
    let update = sandbox::read(request.sandbox)?;
    controller.update(&scope, update, &request.fields).await?;
    Ok(ControllerUpdateResponse {})
}
