//! Tasks.Pause

use kevel_client::convert::need_text;
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::PauseTaskRequest;

pub(super) async fn pause(tasks: Tasks, scope: Scope, request: PauseTaskRequest) -> Result<()> {
    need_text("container_id", &request.container_id)?;
    tasks.pause(&scope, &request.container_id).await
}
