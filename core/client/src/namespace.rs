//! Namespaces behind a socket.

use async_trait::async_trait;
use kevel_contract::namespace::{Backend, NamespaceStore};
use kevel_model::{Labels, Namespace, Result};
use kevel_proto::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, GetNamespaceRequest, ListNamespacesRequest, Namespace as Record,
    UpdateNamespaceRequest, namespaces_client::NamespacesClient,
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{mask, need},
    remote::{answer, client},
};

/// A namespace store behind a socket.
pub fn namespaces(remote: &Remote) -> NamespaceStore {
    NamespaceStore::new(remote.target(), RemoteNamespaces(remote.clone()))
}

struct RemoteNamespaces(Remote);

impl RemoteNamespaces {
    fn client(&self) -> NamespacesClient<Channel> {
        client!(NamespacesClient<Channel>, self.0)
    }
}

#[async_trait]
impl Backend for RemoteNamespaces {
    async fn get(&self, name: &Namespace) -> Result<Labels> {
        let message = GetNamespaceRequest { name: name.to_string() };
        Ok(need("namespace", answer(self.client().get(message).await)?.namespace)?.labels)
    }

    async fn list(&self) -> Result<Vec<(Namespace, Labels)>> {
        let found = answer(self.client().list(ListNamespacesRequest::default()).await)?.namespaces;
        found.into_iter().map(|found| Ok((Namespace::new(&found.name)?, found.labels))).collect()
    }

    async fn create(&self, name: &Namespace, labels: Labels) -> Result<()> {
        let message = CreateNamespaceRequest { namespace: Some(Record { name: name.to_string(), labels }) };
        answer(self.client().create(message).await).map(|_| ())
    }

    async fn update(&self, name: &Namespace, labels: Labels, fieldpaths: &[String]) -> Result<Labels> {
        let namespace = Some(Record { name: name.to_string(), labels });
        let message = UpdateNamespaceRequest { namespace, update_mask: mask(fieldpaths) };
        Ok(need("namespace", answer(self.client().update(message).await)?.namespace)?.labels)
    }

    async fn delete(&self, name: &Namespace) -> Result<()> {
        answer(self.client().delete(DeleteNamespaceRequest { name: name.to_string() }).await)
    }
}
