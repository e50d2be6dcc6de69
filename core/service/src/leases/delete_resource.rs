//! Leases.DeleteResource

use kevel_client::convert::{lease, need_text};
use kevel_contract::{Scope, lease::LeaseManager};
use kevel_model::Result;
use kevel_proto::containerd::services::leases::v1::DeleteResourceRequest;

pub(super) async fn delete_resource(manager: LeaseManager, scope: Scope, request: DeleteResourceRequest) -> Result<()> {
    need_text("id", &request.id)?;
    manager.remove(&scope, &request.id, lease::resource_read(request.resource)?).await
}
