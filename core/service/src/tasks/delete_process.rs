//! Tasks.DeleteProcess

use kevel_client::convert::{need_text, task};
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::{DeleteProcessRequest, DeleteResponse};

pub(super) async fn delete_process(
    tasks: Tasks,
    scope: Scope,
    request: DeleteProcessRequest,
) -> Result<DeleteResponse> {
    need_text("container_id", &request.container_id)?;
    need_text("exec_id", &request.exec_id)?;
    let deleted = tasks.delete_process(&scope, &request.container_id, &request.exec_id).await?;
    Ok(task::deleted_wire(deleted))
}
