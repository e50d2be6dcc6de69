//! Mounts.Deactivate

use kevel_client::convert::need_text;
use kevel_contract::{Scope, mounts::MountManager};
use kevel_model::Result;
use kevel_proto::containerd::services::mounts::v1::DeactivateRequest;

pub(super) async fn deactivate(manager: MountManager, scope: Scope, request: DeactivateRequest) -> Result<()> {
    need_text("name", &request.name)?;
    manager.deactivate(&scope, &request.name).await
}
