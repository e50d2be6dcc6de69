//! Snapshots.Stat

use kevel_client::convert::{need_text, snapshot};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::snapshots::v1::{StatSnapshotRequest, StatSnapshotResponse};

pub(super) async fn stat(
    snapshotters: super::Snapshotters,
    scope: Scope,
    request: StatSnapshotRequest,
) -> Result<StatSnapshotResponse> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    need_text("key", &request.key)?;
    let info = snapshotter.stat(&scope, &request.key).await?;
    Ok(StatSnapshotResponse { info: Some(snapshot::wire(info)) })
}
