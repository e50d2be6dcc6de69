//! Snapshots.Update

use kevel_client::convert::{need_text, paths, snapshot};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::snapshots::v1::{UpdateSnapshotRequest, UpdateSnapshotResponse};

pub(super) async fn update(
    snapshotters: super::Snapshotters,
    scope: Scope,
    request: UpdateSnapshotRequest,
) -> Result<UpdateSnapshotResponse> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    let update = snapshot::read(request.info, true)?;
    need_text("info.name", &update.name)?;
    let info = snapshotter.update(&scope, update, &paths(request.update_mask)).await?;
    Ok(UpdateSnapshotResponse { info: Some(snapshot::wire(info)) })
}
