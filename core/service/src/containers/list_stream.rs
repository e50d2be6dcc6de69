//! Containers.ListStream: one container in each message.

use futures::{StreamExt as _, stream};
use kevel_client::convert::container;
use kevel_contract::{Scope, container::ContainerStore};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::containers::v1::{ListContainerMessage, ListContainersRequest};

use crate::call::Items;

pub(super) async fn list_stream(
    store: ContainerStore,
    scope: Scope,
    request: ListContainersRequest,
) -> Result<Items<ListContainerMessage>> {
    let found = store.list(&scope, &Filters::parse(&request.filters)?).await?;
    let message = |found| Ok(ListContainerMessage { container: Some(container::wire(found)) });
    Ok(stream::iter(found).map(message).boxed())
}
