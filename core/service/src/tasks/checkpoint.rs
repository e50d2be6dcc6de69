//! Tasks.Checkpoint

use kevel_client::convert::{any_read, need_text, types};
use kevel_contract::{
    Scope,
    task::{Checkpoint, Tasks},
};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::{CheckpointTaskRequest, CheckpointTaskResponse};

pub(super) async fn checkpoint(
    tasks: Tasks,
    scope: Scope,
    request: CheckpointTaskRequest,
) -> Result<CheckpointTaskResponse> {
    need_text("container_id", &request.container_id)?;
    let CheckpointTaskRequest { container_id, options, .. } = request;
    let checkpoint = Checkpoint { container_id, options: options.map(any_read), limit: None };
    let made = tasks.checkpoint(&scope, checkpoint).await?;
    Ok(CheckpointTaskResponse { descriptors: made.into_iter().map(types::descriptor_wire).collect() })
}
