//! Containers.Create

use kevel_client::convert::container;
use kevel_contract::{Scope, container::ContainerStore};
use kevel_model::Result;
use kevel_proto::containerd::services::containers::v1::{CreateContainerRequest, CreateContainerResponse};

pub(super) async fn create(
    store: ContainerStore,
    scope: Scope,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse> {
    let made = store.create(&scope, container::read(request.container)?).await?;
    Ok(CreateContainerResponse { container: Some(container::wire(made)) })
}
