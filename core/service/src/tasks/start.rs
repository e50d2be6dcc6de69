//! Tasks.Start: an empty exec id means the container's first process.

use kevel_client::convert::need_text;
use kevel_contract::{Scope, task::Tasks};
use kevel_model::Result;
use kevel_proto::containerd::services::tasks::v1::{StartRequest, StartResponse};

pub(super) async fn start(tasks: Tasks, scope: Scope, request: StartRequest) -> Result<StartResponse> {
    need_text("container_id", &request.container_id)?;
    let pid = tasks.start(&scope, &request.container_id, &request.exec_id).await?;
    Ok(StartResponse { pid })
}
