//! Tasks.Kill

use kevel_client::convert::need_text;
use kevel_contract::{
    Scope,
    task::{Kill, Tasks},
};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::KillRequest;

pub(super) async fn kill(tasks: Tasks, scope: Scope, request: KillRequest) -> Result<()> {
    need_text("container_id", &request.container_id)?;
    let KillRequest { container_id, exec_id, signal, all } = request;
    tasks.kill(&scope, Kill { container_id, exec_id, signal, all }).await
}
