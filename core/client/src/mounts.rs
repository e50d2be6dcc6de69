//! Mounts behind a socket.

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    mounts::{Activate, Activation, Backend, MountManager},
};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::mounts::v1::{
    ActivateRequest, DeactivateRequest, InfoRequest, ListRequest, UpdateRequest, mounts_client::MountsClient,
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{error::error, mask, mounts, types},
    remote::{answer, client},
};

/// A mount manager behind a socket.
pub fn mounts(remote: &Remote) -> MountManager {
    MountManager::new(remote.target(), RemoteMounts(remote.clone()))
}

struct RemoteMounts(Remote);

impl RemoteMounts {
    fn client(&self) -> MountsClient<Channel> {
        client!(MountsClient<Channel>, self.0)
    }
}

#[async_trait]
impl Backend for RemoteMounts {
    async fn activate(&self, scope: &Scope, name: &str, activate: Activate) -> Result<Activation> {
        let Activate { mounts, labels, temporary } = activate;
        let message = ActivateRequest { name: name.to_owned(), mounts: types::mounts_wire(mounts), labels, temporary };
        mounts::read(answer(self.client().activate(self.0.request(scope, message)?).await)?.info)
    }

    async fn deactivate(&self, scope: &Scope, name: &str) -> Result<()> {
        let message = DeactivateRequest { name: name.to_owned() };
        answer(self.client().deactivate(self.0.request(scope, message)?).await)
    }

    async fn info(&self, scope: &Scope, name: &str) -> Result<Activation> {
        let message = InfoRequest { name: name.to_owned() };
        mounts::read(answer(self.client().info(self.0.request(scope, message)?).await)?.info)
    }

    async fn update(&self, scope: &Scope, activation: Activation, fieldpaths: &[String]) -> Result<Activation> {
        let message = UpdateRequest { info: Some(mounts::wire(activation)), update_mask: mask(fieldpaths) };
        mounts::read(answer(self.client().update(self.0.request(scope, message)?).await)?.info)
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Activation>> {
        let message = ListRequest { filters: filters.sources().to_vec() };
        let mut messages = answer(self.client().list(self.0.request(scope, message)?).await)?;
        let mut found = Vec::new();
        while let Some(message) = messages.message().await.map_err(error)? {
            found.push(mounts::read(message.info)?);
        }
        Ok(found)
    }
}
