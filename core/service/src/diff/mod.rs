//! `containerd.services.diff.v1.Diff` over a differ.

mod apply;
#[expect(clippy::module_inception, reason = "modules are named after their RPC")]
mod diff;

use kevel_contract::diff::Differ;
use kevel_proto::containerd::services::diff::v1::{ApplyRequest, ApplyResponse, DiffRequest, DiffResponse};

crate::call::service! {
    /// The diff service.
    Diff over Differ as DiffServer in kevel_proto::containerd::services::diff::v1::diff_server {
        change apply(ApplyRequest) -> ApplyResponse;
        change diff(DiffRequest) -> DiffResponse;
    }
}
