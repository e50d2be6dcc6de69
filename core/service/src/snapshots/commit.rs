//! Snapshots.Commit: a parent rebases the snapshot, where the snapshotter can.

use kevel_client::convert::need_text;
use kevel_contract::{Scope, snapshot::Commit};
use kevel_model::Result;
use kevel_proto::containerd::services::snapshots::v1::CommitSnapshotRequest;

pub(super) async fn commit(
    snapshotters: super::Snapshotters,
    scope: Scope,
    request: CommitSnapshotRequest,
) -> Result<()> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    need_text("name", &request.name)?;
    need_text("key", &request.key)?;
    let parent = Some(request.parent).filter(|parent| !parent.is_empty());
    let commit = Commit { labels: request.labels, parent };
    snapshotter.commit(&scope, &request.name, &request.key, commit).await
}
