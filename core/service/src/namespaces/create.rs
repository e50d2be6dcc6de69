//! Namespaces.Create

use kevel_client::convert::need;
use kevel_contract::namespace::NamespaceStore;
use kevel_model::Result;
use kevel_proto::containerd::services::namespaces::v1::{CreateNamespaceRequest, CreateNamespaceResponse};

pub(super) async fn create(
    store: NamespaceStore,
    (): (),
    request: CreateNamespaceRequest,
) -> Result<CreateNamespaceResponse> {
    let wanted = need("namespace", request.namespace)?;
    store.create(&super::name(&wanted.name)?, wanted.labels.clone()).await?;
    Ok(CreateNamespaceResponse { namespace: Some(wanted) })
}
