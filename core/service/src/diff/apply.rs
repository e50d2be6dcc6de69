//! Diff.Apply

use kevel_client::convert::{anys_read, types};
use kevel_contract::{
    Scope,
    diff::{Apply, Differ},
};
use kevel_model::Result;
use kevel_proto::containerd::services::diff::v1::{ApplyRequest, ApplyResponse};

pub(super) async fn apply(differ: Differ, scope: Scope, request: ApplyRequest) -> Result<ApplyResponse> {
    let layer = types::descriptor_read("diff", request.diff)?;
    let mounts = types::mounts_read(request.mounts);
    let apply = Apply { payloads: anys_read(request.payloads), sync_fs: request.sync_fs };
    let applied = differ.apply(&scope, &layer, &mounts, apply).await?;
    Ok(ApplyResponse { applied: Some(types::descriptor_wire(applied)) })
}
