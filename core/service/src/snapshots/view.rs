//! Snapshots.View

use kevel_client::convert::{need_text, types};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::snapshots::v1::{ViewSnapshotRequest, ViewSnapshotResponse};

pub(super) async fn view(
    snapshotters: super::Snapshotters,
    scope: Scope,
    request: ViewSnapshotRequest,
) -> Result<ViewSnapshotResponse> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    need_text("key", &request.key)?;
    let mounts = snapshotter.view(&scope, &request.key, &request.parent, request.labels).await?;
    Ok(ViewSnapshotResponse { mounts: types::mounts_wire(mounts) })
}
