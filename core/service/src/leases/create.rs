//! Leases.Create

use kevel_client::convert::lease;
use kevel_contract::{Scope, lease::LeaseManager};
use kevel_model::Result;
use kevel_proto::containerd::services::leases::v1::{CreateRequest, CreateResponse};

pub(super) async fn create(manager: LeaseManager, scope: Scope, request: CreateRequest) -> Result<CreateResponse> {
    let made = manager.create(&scope, &request.id, request.labels).await?;
    Ok(CreateResponse { lease: Some(lease::wire(made)) })
}
