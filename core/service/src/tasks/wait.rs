//! Tasks.Wait: answers when the process has ended, however long that takes.

use kevel_client::convert::{need_text, time_wire};
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::{WaitRequest, WaitResponse};

pub(super) async fn wait(tasks: Tasks, scope: Scope, request: WaitRequest) -> Result<WaitResponse> {
    need_text("container_id", &request.container_id)?;
    let exit = tasks.wait(&scope, &request.container_id, &request.exec_id).await?;
    Ok(WaitResponse { exit_status: exit.status, exited_at: time_wire(exit.at) })
}
