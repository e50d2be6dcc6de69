//! Containers.Update

use kevel_client::convert::{container, need_text, paths};
use kevel_contract::{Scope, container::ContainerStore};
use kevel_model::Result;
use kevel_proto::containerd::services::containers::v1::{UpdateContainerRequest, UpdateContainerResponse};

pub(super) async fn update(
    store: ContainerStore,
    scope: Scope,
    request: UpdateContainerRequest,
) -> Result<UpdateContainerResponse> {
    let update = container::read(request.container)?;
    need_text("container.id", &update.id)?;
    let updated = store.update(&scope, update, &paths(request.update_mask)).await?;
    Ok(UpdateContainerResponse { container: Some(container::wire(updated)) })
}
