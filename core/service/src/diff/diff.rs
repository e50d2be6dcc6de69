//! Diff.Diff

use kevel_client::convert::{optional_time_read, types};
use kevel_contract::{
    Scope,
    diff::{Compare, Differ},
};
use kevel_model::Result;
use kevel_proto::containerd::services::diff::v1::{DiffRequest, DiffResponse};

pub(super) async fn diff(differ: Differ, scope: Scope, request: DiffRequest) -> Result<DiffResponse> {
    let (lower, upper) = (types::mounts_read(request.left), types::mounts_read(request.right));
    let compare = Compare {
        media_type: request.media_type,
        reference: request.r#ref,
        labels: request.labels,
        source_date_epoch: optional_time_read("source_date_epoch", request.source_date_epoch)?,
    };
    let layer = differ.compare(&scope, &lower, &upper, compare).await?;
    Ok(DiffResponse { diff: Some(types::descriptor_wire(layer)) })
}
