//! Tasks.Update

use kevel_client::convert::{any_read, need_text};
use kevel_contract::{
    Scope,
    task::{Tasks, Update},
};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::UpdateTaskRequest;

pub(super) async fn update(tasks: Tasks, scope: Scope, request: UpdateTaskRequest) -> Result<()> {
    need_text("container_id", &request.container_id)?;
    let UpdateTaskRequest { container_id, resources, annotations } = request;
    tasks.update(&scope, Update { container_id, resources: resources.map(any_read), annotations }).await
}
