//! Snapshots.Mounts

use kevel_client::convert::{need_text, types};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::snapshots::v1::{MountsRequest, MountsResponse};

pub(super) async fn mounts(
    snapshotters: super::Snapshotters,
    scope: Scope,
    request: MountsRequest,
) -> Result<MountsResponse> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    need_text("key", &request.key)?;
    let mounts = snapshotter.mounts(&scope, &request.key).await?;
    Ok(MountsResponse { mounts: types::mounts_wire(mounts) })
}
