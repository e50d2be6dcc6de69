//! Snapshots behind a socket.

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    snapshot::{Backend, Commit, Info, Snapshotter, Usage},
};
use kevel_model::{Filters, Labels, Mount, Result};
use kevel_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest, ViewSnapshotRequest,
    snapshots_client::SnapshotsClient,
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{error::error, mask, snapshot, types, unsigned},
    remote::{answer, client},
};

/// The snapshotter of that name behind a socket.
pub fn snapshotter(remote: &Remote, name: impl Into<String>) -> Snapshotter {
    Snapshotter::new(remote.target(), RemoteSnapshotter { remote: remote.clone(), name: name.into() })
}

struct RemoteSnapshotter {
    remote: Remote,
    name: String,
}

impl RemoteSnapshotter {
    fn client(&self) -> SnapshotsClient<Channel> {
        client!(SnapshotsClient<Channel>, self.remote)
    }

    fn snapshotter(&self) -> String {
        self.name.clone()
    }
}

#[async_trait]
impl Backend for RemoteSnapshotter {
    async fn stat(&self, scope: &Scope, key: &str) -> Result<Info> {
        let message = StatSnapshotRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        snapshot::read(answer(self.client().stat(self.remote.request(scope, message)?).await)?.info, false)
    }

    async fn update(&self, scope: &Scope, info: Info, fieldpaths: &[String]) -> Result<Info> {
        let (snapshotter, info) = (self.snapshotter(), Some(snapshot::wire(info)));
        let message = UpdateSnapshotRequest { snapshotter, info, update_mask: mask(fieldpaths) };
        snapshot::read(answer(self.client().update(self.remote.request(scope, message)?).await)?.info, false)
    }

    async fn usage(&self, scope: &Scope, key: &str) -> Result<Usage> {
        let message = UsageRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        let usage = answer(self.client().usage(self.remote.request(scope, message)?).await)?;
        Ok(Usage { size: unsigned("size", usage.size)?, inodes: unsigned("inodes", usage.inodes)? })
    }

    async fn mounts(&self, scope: &Scope, key: &str) -> Result<Vec<Mount>> {
        let message = MountsRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        Ok(types::mounts_read(answer(self.client().mounts(self.remote.request(scope, message)?).await)?.mounts))
    }

    async fn prepare(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        let (snapshotter, key, parent) = (self.snapshotter(), key.to_owned(), parent.to_owned());
        let message = PrepareSnapshotRequest { snapshotter, key, parent, labels };
        Ok(types::mounts_read(answer(self.client().prepare(self.remote.request(scope, message)?).await)?.mounts))
    }

    async fn view(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        let (snapshotter, key, parent) = (self.snapshotter(), key.to_owned(), parent.to_owned());
        let message = ViewSnapshotRequest { snapshotter, key, parent, labels };
        Ok(types::mounts_read(answer(self.client().view(self.remote.request(scope, message)?).await)?.mounts))
    }

    async fn commit(&self, scope: &Scope, name: &str, key: &str, commit: Commit) -> Result<()> {
        let message = CommitSnapshotRequest {
            snapshotter: self.snapshotter(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: commit.labels,
            parent: commit.parent.unwrap_or_default(),
        };
        answer(self.client().commit(self.remote.request(scope, message)?).await)
    }

    async fn remove(&self, scope: &Scope, key: &str) -> Result<()> {
        let message = RemoveSnapshotRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        answer(self.client().remove(self.remote.request(scope, message)?).await)
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>> {
        let message = ListSnapshotsRequest { snapshotter: self.snapshotter(), filters: filters.sources().to_vec() };
        let mut pages = answer(self.client().list(self.remote.request(scope, message)?).await)?;
        let mut found = Vec::new();
        while let Some(page) = pages.message().await.map_err(error)? {
            for info in page.info {
                found.push(snapshot::read(Some(info), false)?);
            }
        }
        Ok(found)
    }

    /// A snapshotter that has nothing to clean up may not offer the call.
    async fn cleanup(&self, scope: &Scope) -> Result<()> {
        let message = CleanupRequest { snapshotter: self.snapshotter() };
        match answer(self.client().cleanup(self.remote.request(scope, message)?).await) {
            Err(error) if error.is_unimplemented() => Ok(()),
            other => other,
        }
    }
}
