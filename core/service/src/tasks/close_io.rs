//! Tasks.CloseIO: standard input is all that can be closed.

use kevel_client::convert::need_text;
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::CloseIoRequest;

pub(super) async fn close_io(tasks: Tasks, scope: Scope, request: CloseIoRequest) -> Result<()> {
    need_text("container_id", &request.container_id)?;
    if !request.stdin {
        return Ok(());
    }
    tasks.close_io(&scope, &request.container_id, &request.exec_id).await
}
