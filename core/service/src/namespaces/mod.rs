//! `containerd.services.namespaces.v1.Namespaces` over a namespace store. Its calls need no namespace in the metadata.

mod create;
mod delete;
mod get;
mod list;
mod update;

use kevel_contract::namespace::NamespaceStore;
use kevel_model::{Error, Labels, Result};
use kevel_proto::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, GetNamespaceRequest, GetNamespaceResponse,
    ListNamespacesRequest, ListNamespacesResponse, Namespace, UpdateNamespaceRequest, UpdateNamespaceResponse,
};

crate::call::service! {
    /// The namespace service.
    Namespaces over NamespaceStore as NamespacesServer in kevel_proto::containerd::services::namespaces::v1::namespaces_server {
        look get(GetNamespaceRequest) -> GetNamespaceResponse;
        look list(ListNamespacesRequest) -> ListNamespacesResponse;
        alter create(CreateNamespaceRequest) -> CreateNamespaceResponse;
        alter update(UpdateNamespaceRequest) -> UpdateNamespaceResponse;
        alter delete(DeleteNamespaceRequest) -> ();
    }
}

/// A namespace for the wire.
fn wire(name: &kevel_model::Namespace, labels: Labels) -> Namespace {
    Namespace { name: name.to_string(), labels }
}

/// A namespace's name from the wire.
fn name(name: &str) -> Result<kevel_model::Namespace> {
    kevel_model::Namespace::new(name).map_err(|error| Error::from(error).context("name"))
}
