//! Tasks.Get

use kevel_client::convert::{need_text, task};
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::{GetRequest, GetResponse};

pub(super) async fn get(tasks: Tasks, scope: Scope, request: GetRequest) -> Result<GetResponse> {
    need_text("container_id", &request.container_id)?;
    let process = tasks.get(&scope, &request.container_id, &request.exec_id).await?;
    Ok(GetResponse { process: Some(task::wire(process)) })
}
