//! Namespaces.Update

use kevel_client::convert::{need, paths};
use kevel_contract::namespace::NamespaceStore;
use kevel_model::Result;
use kevel_proto::containerd::services::namespaces::v1::{UpdateNamespaceRequest, UpdateNamespaceResponse};

pub(super) async fn update(
    store: NamespaceStore,
    (): (),
    request: UpdateNamespaceRequest,
) -> Result<UpdateNamespaceResponse> {
    let wanted = need("namespace", request.namespace)?;
    let name = super::name(&wanted.name)?;
    let labels = store.update(&name, wanted.labels, &paths(request.update_mask)).await?;
    Ok(UpdateNamespaceResponse { namespace: Some(super::wire(&name, labels)) })
}
