//! Leases.AddResource

use kevel_client::convert::{lease, need_text};
use kevel_contract::{Scope, lease::LeaseManager};
use kevel_model::Result;
use kevel_proto::containerd::services::leases::v1::AddResourceRequest;

pub(super) async fn add_resource(manager: LeaseManager, scope: Scope, request: AddResourceRequest) -> Result<()> {
    need_text("id", &request.id)?;
    manager.add(&scope, &request.id, lease::resource_read(request.resource)?).await
}
