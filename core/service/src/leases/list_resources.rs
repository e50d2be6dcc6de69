//! Leases.ListResources

use kevel_client::convert::{lease, need_text};
use kevel_contract::{Scope, lease::LeaseManager};
use kevel_model::Result;
use kevel_proto::containerd::services::leases::v1::{ListResourcesRequest, ListResourcesResponse};

pub(super) async fn list_resources(
    manager: LeaseManager,
    scope: Scope,
    request: ListResourcesRequest,
) -> Result<ListResourcesResponse> {
    need_text("id", &request.id)?;
    let kept = manager.resources(&scope, &request.id).await?;
    Ok(ListResourcesResponse { resources: kept.into_iter().map(lease::resource_wire).collect() })
}
