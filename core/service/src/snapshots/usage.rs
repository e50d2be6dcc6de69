//! Snapshots.Usage

use kevel_client::convert::{need_text, signed};
use kevel_contract::Scope;
use kevel_model::Result;
use kevel_proto::containerd::services::snapshots::v1::{UsageRequest, UsageResponse};

pub(super) async fn usage(
    snapshotters: super::Snapshotters,
    scope: Scope,
    request: UsageRequest,
) -> Result<UsageResponse> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    need_text("key", &request.key)?;
    let usage = snapshotter.usage(&scope, &request.key).await?;
    Ok(UsageResponse { size: signed(usage.size), inodes: signed(usage.inodes) })
}
