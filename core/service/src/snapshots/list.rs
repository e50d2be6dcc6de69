//! Snapshots.List: a hundred snapshots in each message.

use futures::{StreamExt as _, stream};
use kevel_client::convert::snapshot;
use kevel_contract::Scope;
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::snapshots::v1::{ListSnapshotsRequest, ListSnapshotsResponse};

use crate::call::Items;

const PAGE: usize = 100;

pub(super) async fn list(
    snapshotters: super::Snapshotters,
    scope: Scope,
    request: ListSnapshotsRequest,
) -> Result<Items<ListSnapshotsResponse>> {
    let snapshotter = super::pick(&snapshotters, &request.snapshotter)?;
    let found = snapshotter.list(&scope, &Filters::parse(&request.filters)?).await?;
    let pages = stream::iter(found).map(snapshot::wire).chunks(PAGE);
    Ok(pages.map(|info| Ok(ListSnapshotsResponse { info })).boxed())
}
