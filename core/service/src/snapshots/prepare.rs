//! Snapshots.Prepare

use kevel_client::convert::{need_text, types};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::snapshots::v1::{PrepareSnapshotRequest, PrepareSnapshotResponse};

pub(super) async fn prepare(
    snapshotters: super::Snapshotters,
    scope: Scope,
    request: PrepareSnapshotRequest,
) -> Result<PrepareSnapshotResponse> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    need_text("key", &request.key)?;
    let mounts = snapshotter.prepare(&scope, &request.key, &request.parent, request.labels).await?;
    Ok(PrepareSnapshotResponse { mounts: types::mounts_wire(mounts) })
}
