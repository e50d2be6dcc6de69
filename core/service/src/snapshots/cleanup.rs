//! Snapshots.Cleanup

use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::snapshots::v1::CleanupRequest;

pub(super) async fn cleanup(snapshotters: super::Snapshotters, scope: Scope, request: CleanupRequest) -> Result<()> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    snapshotter.cleanup(&scope).await
}
