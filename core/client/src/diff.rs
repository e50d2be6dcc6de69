//! A differ behind a socket.

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    diff::{Apply, Backend, Compare, Differ},
};
use kevel_model::{Descriptor, Mount, Result};
use kevel_proto::containerd::services::diff::v1::{ApplyRequest, DiffRequest, diff_client::DiffClient};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{anys_wire, time_wire, types},
    remote::{answer, client},
};

/// A differ behind a socket.
pub fn differ(remote: &Remote) -> Differ {
    Differ::new(remote.target(), RemoteDiffer(remote.clone()))
}

struct RemoteDiffer(Remote);

#[async_trait]
impl Backend for RemoteDiffer {
    async fn apply(&self, scope: &Scope, layer: &Descriptor, mounts: &[Mount], apply: Apply) -> Result<Descriptor> {
        let message = ApplyRequest {
            diff: Some(types::descriptor_wire(layer.clone())),
            mounts: types::mounts_wire(mounts.to_vec()),
            payloads: anys_wire(apply.payloads),
            sync_fs: apply.sync_fs,
        };
        let applied = answer(client!(DiffClient<Channel>, self.0).apply(self.0.request(scope, message)?).await)?;
        types::descriptor_read("applied", applied.applied)
    }

    async fn compare(&self, scope: &Scope, lower: &[Mount], upper: &[Mount], compare: Compare) -> Result<Descriptor> {
        let message = DiffRequest {
            left: types::mounts_wire(lower.to_vec()),
            right: types::mounts_wire(upper.to_vec()),
            media_type: compare.media_type,
            r#ref: compare.reference,
            labels: compare.labels,
            source_date_epoch: compare.source_date_epoch.and_then(time_wire),
        };
        let made = answer(client!(DiffClient<Channel>, self.0).diff(self.0.request(scope, message)?).await)?;
        types::descriptor_read("diff", made.diff)
    }
}
