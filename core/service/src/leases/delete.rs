//! Leases.Delete

use kevel_client::convert::need_text;
use kevel_contract::{Scope, lease::LeaseManager};
use kevel_model::Result;
use kevel_proto::containerd::services::leases::v1::DeleteRequest;

pub(super) async fn delete(manager: LeaseManager, scope: Scope, request: DeleteRequest) -> Result<()> {
    need_text("id", &request.id)?;
    manager.delete(&scope, &request.id, request.sync).await
}
