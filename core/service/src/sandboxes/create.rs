//! Store.Create

use kevel_client::convert::sandbox;
use kevel_contract::{Scope, sandbox::SandboxStore};
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{StoreCreateRequest, StoreCreateResponse};

pub(super) async fn create(
    store: SandboxStore,
    scope: Scope,
    request: StoreCreateRequest,
) -> Result<StoreCreateResponse> {
    let made = store.create(&scope, sandbox::read(request.sandbox)?).await?;
    Ok(StoreCreateResponse { sandbox: Some(sandbox::wire(made)) })
}
