//! Tasks.Resume

use kevel_client::convert::need_text;
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::ResumeTaskRequest;

pub(super) async fn resume(tasks: Tasks, scope: Scope, request: ResumeTaskRequest) -> Result<()> {
    need_text("container_id", &request.container_id)?;
    tasks.resume(&scope, &request.container_id).await
}
