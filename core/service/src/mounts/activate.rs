//! Mounts.Activate

use kevel_client::convert::{mounts, need_text, types};
use kevel_contract::{
    Scope,
    mounts::{Activate, MountManager},
};
use kevel_model::Result;
use kevel_proto::containerd::services::mounts::v1::{ActivateRequest, ActivateResponse};

pub(super) async fn activate(
    manager: MountManager,
    scope: Scope,
    request: ActivateRequest,
) -> Result<ActivateResponse> {
    let ActivateRequest { name, mounts, labels, temporary } = request;
    need_text("name", &name)?;
    let activate = Activate { mounts: types::mounts_read(mounts), labels, temporary };
    let activation = manager.activate(&scope, &name, activate).await?;
    Ok(ActivateResponse { info: Some(mounts::wire(activation)) })
}
