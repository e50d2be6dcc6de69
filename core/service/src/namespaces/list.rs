//! Namespaces.List. The filter of the request is not looked at, as in containerd.

use kevel_contract::namespace::NamespaceStore;
use kevel_model::Result;
use kevel_proto::containerd::services::namespaces::v1::{ListNamespacesRequest, ListNamespacesResponse};

pub(super) async fn list(store: NamespaceStore, (): (), _: ListNamespacesRequest) -> Result<ListNamespacesResponse> {
    let found = store.list().await?;
    Ok(ListNamespacesResponse {
        namespaces: found.into_iter().map(|(name, labels)| super::wire(&name, labels)).collect(),
    })
}
