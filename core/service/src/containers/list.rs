//! Containers.List

use kevel_client::convert::container;
use kevel_contract::{Scope, container::ContainerStore};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::containers::v1::{ListContainersRequest, ListContainersResponse};

pub(super) async fn list(
    store: ContainerStore,
    scope: Scope,
    request: ListContainersRequest,
) -> Result<ListContainersResponse> {
    let found = store.list(&scope, &Filters::parse(&request.filters)?).await?;
    Ok(ListContainersResponse { containers: found.into_iter().map(container::wire).collect() })
}
