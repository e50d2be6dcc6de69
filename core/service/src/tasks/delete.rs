//! Tasks.Delete

use kevel_client::convert::{need_text, task};
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::{DeleteResponse, DeleteTaskRequest};

pub(super) async fn delete(tasks: Tasks, scope: Scope, request: DeleteTaskRequest) -> Result<DeleteResponse> {
    need_text("container_id", &request.container_id)?;
    tasks.delete(&scope, &request.container_id).await.map(task::deleted_wire)
}
