//! Tasks.ResizePty

use kevel_client::convert::need_text;
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::ResizePtyRequest;

pub(super) async fn resize_pty(tasks: Tasks, scope: Scope, request: ResizePtyRequest) -> Result<()> {
    need_text("container_id", &request.container_id)?;
    let ResizePtyRequest { container_id, exec_id, width, height } = request;
    tasks.resize(&scope, &container_id, &exec_id, width, height).await
}
