//! Containers.Delete

use kevel_client::convert::need_text;
use kevel_contract::{Scope, container::ContainerStore};
use kevel_model::Result;
use kevel_proto::containerd::services::containers::v1::DeleteContainerRequest;

pub(super) async fn delete(store: ContainerStore, scope: Scope, request: DeleteContainerRequest) -> Result<()> {
    need_text("id", &request.id)?;
    store.delete(&scope, &request.id).await
}
