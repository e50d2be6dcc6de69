//! Tasks.Checkpoint

use kevel_client::convert::{any_read, need_text, types};
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::{CheckpointTaskRequest, CheckpointTaskResponse};

pub(super) async fn checkpoint(
    tasks: Tasks,
    scope: Scope,
    request: CheckpointTaskRequest,
) -> Result<CheckpointTaskResponse> {
    need_text("container_id", &request.container_id)?;
    let made = tasks.checkpoint(&scope, &request.container_id, request.options.map(any_read)).await?;
    Ok(CheckpointTaskResponse { descriptors: made.into_iter().map(types::descriptor_wire).collect() })
}
