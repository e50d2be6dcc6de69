//! Namespaces.Delete

use kevel_contract::namespace::NamespaceStore;
use kevel_model::Result;
use kevel_proto::containerd::services::namespaces::v1::DeleteNamespaceRequest;

pub(super) async fn delete(store: NamespaceStore, (): (), request: DeleteNamespaceRequest) -> Result<()> {
    store.delete(&super::name(&request.name)?).await
}
