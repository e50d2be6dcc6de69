//! Containers behind a socket.

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    container::{Backend, Container, ContainerStore},
};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::containers::v1::{
    CreateContainerRequest, DeleteContainerRequest, GetContainerRequest, ListContainersRequest, UpdateContainerRequest,
    containers_client::ContainersClient,
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{container, error::error, mask},
    remote::{answer, client, request},
};

/// A container store behind a socket.
pub fn containers(remote: &Remote) -> ContainerStore {
    ContainerStore::new(remote.target(), RemoteContainers(remote.clone()))
}

struct RemoteContainers(Remote);

impl RemoteContainers {
    fn client(&self) -> ContainersClient<Channel> {
        client!(ContainersClient<Channel>, self.0)
    }
}

#[async_trait]
impl Backend for RemoteContainers {
    async fn get(&self, scope: &Scope, id: &str) -> Result<Container> {
        let message = GetContainerRequest { id: id.to_owned() };
        container::read(answer(self.client().get(request(scope, message)?).await)?.container)
    }

    /// Asks for a stream, which no number of containers makes too large.
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Container>> {
        let message = ListContainersRequest { filters: filters.sources().to_vec() };
        let mut messages = answer(self.client().list_stream(request(scope, message)?).await)?;
        let mut found = Vec::new();
        while let Some(message) = messages.message().await.map_err(error)? {
            found.push(container::read(message.container)?);
        }
        Ok(found)
    }

    async fn create(&self, scope: &Scope, wanted: Container) -> Result<Container> {
        let message = CreateContainerRequest { container: Some(container::wire(wanted)) };
        container::read(answer(self.client().create(request(scope, message)?).await)?.container)
    }

    async fn update(&self, scope: &Scope, wanted: Container, fieldpaths: &[String]) -> Result<Container> {
        let message =
            UpdateContainerRequest { container: Some(container::wire(wanted)), update_mask: mask(fieldpaths) };
        container::read(answer(self.client().update(request(scope, message)?).await)?.container)
    }

    async fn delete(&self, scope: &Scope, id: &str) -> Result<()> {
        let message = DeleteContainerRequest { id: id.to_owned() };
        answer(self.client().delete(request(scope, message)?).await)
    }
}
