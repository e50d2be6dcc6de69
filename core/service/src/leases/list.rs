//! Leases.List

use kevel_client::convert::lease;
use kevel_contract::{Scope, lease::LeaseManager};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::leases::v1::{ListRequest, ListResponse};

pub(super) async fn list(manager: LeaseManager, scope: Scope, request: ListRequest) -> Result<ListResponse> {
    let found = manager.list(&scope, &Filters::parse(&request.filters)?).await?;
    Ok(ListResponse { leases: found.into_iter().map(lease::wire).collect() })
}
