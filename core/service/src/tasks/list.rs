//! Tasks.List

use kevel_client::convert::task;
use kevel_contract::{Scope, task::Tasks};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::tasks::v1::{ListTasksRequest, ListTasksResponse};

pub(super) async fn list(tasks: Tasks, scope: Scope, request: ListTasksRequest) -> Result<ListTasksResponse> {
    let filter = Some(request.filter).filter(|filter| !filter.is_empty());
    let found = tasks.list(&scope, &Filters::parse(filter.as_slice())?).await?;
    Ok(ListTasksResponse { tasks: found.into_iter().map(task::wire).collect() })
}
