//! Leases behind a socket.

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    lease::{Backend, Lease, LeaseManager, Resource},
};
use kevel_model::{Filters, Labels, Result};
use kevel_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, DeleteResourceRequest, ListRequest, ListResourcesRequest,
    leases_client::LeasesClient,
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::lease,
    remote::{answer, client, request},
};

/// A lease manager behind a socket.
pub fn leases(remote: &Remote) -> LeaseManager {
    LeaseManager::new(remote.target(), RemoteLeases(remote.clone()))
}

struct RemoteLeases(Remote);

impl RemoteLeases {
    fn client(&self) -> LeasesClient<Channel> {
        client!(LeasesClient<Channel>, self.0)
    }
}

#[async_trait]
impl Backend for RemoteLeases {
    async fn create(&self, scope: &Scope, id: &str, labels: Labels) -> Result<Lease> {
        let message = CreateRequest { id: id.to_owned(), labels };
        lease::read(answer(self.client().create(request(scope, message)?).await)?.lease)
    }

    async fn delete(&self, scope: &Scope, id: &str, sync: bool) -> Result<()> {
        let message = DeleteRequest { id: id.to_owned(), sync };
        answer(self.client().delete(request(scope, message)?).await)
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Lease>> {
        let message = ListRequest { filters: filters.sources().to_vec() };
        let found = answer(self.client().list(request(scope, message)?).await)?.leases;
        found.into_iter().map(|found| lease::read(Some(found))).collect()
    }

    async fn add(&self, scope: &Scope, id: &str, resource: Resource) -> Result<()> {
        let message = AddResourceRequest { id: id.to_owned(), resource: Some(lease::resource_wire(resource)) };
        answer(self.client().add_resource(request(scope, message)?).await)
    }

    async fn remove(&self, scope: &Scope, id: &str, resource: Resource) -> Result<()> {
        let message = DeleteResourceRequest { id: id.to_owned(), resource: Some(lease::resource_wire(resource)) };
        answer(self.client().delete_resource(request(scope, message)?).await)
    }

    async fn resources(&self, scope: &Scope, id: &str) -> Result<Vec<Resource>> {
        let message = ListResourcesRequest { id: id.to_owned() };
        let found = answer(self.client().list_resources(request(scope, message)?).await)?.resources;
        found.into_iter().map(|found| lease::resource_read(Some(found))).collect()
    }
}
