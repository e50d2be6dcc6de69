//! Snapshots.Remove

use kevel_client::convert::need_text;
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::snapshots::v1::RemoveSnapshotRequest;

pub(super) async fn remove(
    snapshotters: super::Snapshotters,
    scope: Scope,
    request: RemoveSnapshotRequest,
) -> Result<()> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    need_text("key", &request.key)?;
    snapshotter.remove(&scope, &request.key).await
}
