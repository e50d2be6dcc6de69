//! Controller.Wait

use kevel_client::convert::{need_text, time_wire};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{ControllerWaitRequest, ControllerWaitResponse};

pub(super) async fn wait(
    controllers: super::Controllers,
    scope: Scope,
    request: ControllerWaitRequest,
) -> Result<ControllerWaitResponse> {
    let controller = super::pick(&controllers, &request.sandboxer)?;
    need_text("sandbox_id", &request.sandbox_id)?;
    let exit = controller.wait(&scope, &request.sandbox_id).await?;
    Ok(ControllerWaitResponse { exit_status: exit.status, exited_at: time_wire(exit.at) })
}
