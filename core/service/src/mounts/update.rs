//! Mounts.Update: labels.

use kevel_client::convert::{mounts, need_text, paths};
use kevel_contract::{Scope, mounts::MountManager};
use kevel_model::Result;
use kevel_proto::containerd::services::mounts::v1::{UpdateRequest, UpdateResponse};

pub(super) async fn update(manager: MountManager, scope: Scope, request: UpdateRequest) -> Result<UpdateResponse> {
    let wanted = mounts::read(request.info)?;
    need_text("info.name", &wanted.name)?;
    let updated = manager.update(&scope, wanted, &paths(request.update_mask)).await?;
    Ok(UpdateResponse { info: Some(mounts::wire(updated)) })
}
