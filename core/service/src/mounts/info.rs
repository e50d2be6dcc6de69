//! Mounts.Info

use kevel_client::convert::{mounts, need_text};
use kevel_contract::{Scope, mounts::MountManager};
use kevel_model::Result;
use kevel_proto::containerd::services::mounts::v1::{InfoRequest, InfoResponse};

pub(super) async fn info(manager: MountManager, scope: Scope, request: InfoRequest) -> Result<InfoResponse> {
    need_text("name", &request.name)?;
    let activation = manager.info(&scope, &request.name).await?;
    Ok(InfoResponse { info: Some(mounts::wire(activation)) })
}
