//! Namespaces.Get

use kevel_contract::namespace::NamespaceStore;
use kevel_model::Result;
use kevel_proto::containerd::services::namespaces::v1::{GetNamespaceRequest, GetNamespaceResponse};

pub(super) async fn get(store: NamespaceStore, (): (), request: GetNamespaceRequest) -> Result<GetNamespaceResponse> {
    let name = super::name(&request.name)?;
    let labels = store.get(&name).await?;
    Ok(GetNamespaceResponse { namespace: Some(super::wire(&name, labels)) })
}
