//! Store.List

use kevel_client::convert::sandbox;
use kevel_contract::{Scope, sandbox::SandboxStore};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::sandbox::v1::{StoreListRequest, StoreListResponse};

pub(super) async fn list(store: SandboxStore, scope: Scope, request: StoreListRequest) -> Result<StoreListResponse> {
    let found = store.list(&scope, &Filters::parse(&request.filters)?).await?;
    Ok(StoreListResponse { list: found.into_iter().map(sandbox::wire).collect() })
}
