//! Containers.Get

use kevel_client::convert::{container, need_text};
use kevel_contract::{Scope, container::ContainerStore};
use kevel_model::Result;
use kevel_proto::containerd::services::containers::v1::{GetContainerRequest, GetContainerResponse};

pub(super) async fn get(
    store: ContainerStore,
    scope: Scope,
    request: GetContainerRequest,
) -> Result<GetContainerResponse> {
    need_text("id", &request.id)?;
    let found = store.get(&scope, &request.id).await?;
    Ok(GetContainerResponse { container: Some(container::wire(found)) })
}
