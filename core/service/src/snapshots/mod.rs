//! `containerd.services.snapshots.v1.Snapshots` over snapshotters by name.

mod cleanup;
mod commit;
mod list;
mod mounts;
mod prepare;
mod remove;
mod stat;
mod update;
mod usage;
mod view;

use std::{collections::BTreeMap, sync::Arc};

use kevel_contract::snapshot::Snapshotter;
use kevel_model::{Error, Result};
use kevel_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest, ListSnapshotsResponse, MountsRequest, MountsResponse,
    PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse,
    UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest, UsageResponse, ViewSnapshotRequest,
    ViewSnapshotResponse,
};

/// Snapshotters by name.
type Snapshotters = Arc<BTreeMap<String, Snapshotter>>;

crate::call::service! {
    /// The snapshot service.
    Snapshots over Snapshotters as SnapshotsServer in kevel_proto::containerd::services::snapshots::v1::snapshots_server {
        change prepare(PrepareSnapshotRequest) -> PrepareSnapshotResponse;
        change view(ViewSnapshotRequest) -> ViewSnapshotResponse;
        read mounts(MountsRequest) -> MountsResponse;
        change commit(CommitSnapshotRequest) -> ();
        change remove(RemoveSnapshotRequest) -> ();
        read stat(StatSnapshotRequest) -> StatSnapshotResponse;
        change update(UpdateSnapshotRequest) -> UpdateSnapshotResponse;
        read usage(UsageRequest) -> UsageResponse;
        change cleanup(CleanupRequest) -> ();
    } streams {
        read_stream list(ListSnapshotsRequest) -> ListStream of ListSnapshotsResponse;
    }
}

/// The snapshotter that a request names.
fn pick<'a>(snapshotters: &'a Snapshotters, name: &str) -> Result<&'a Snapshotter> {
    if name.is_empty() {
        return Err(Error::invalid_argument("snapshotter argument missing"));
    }
    snapshotters.get(name).ok_or_else(|| Error::invalid_argument(format!("snapshotter not loaded: {name}")))
}
