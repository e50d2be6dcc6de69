//! Store.Get

use kevel_client::convert::{need_text, sandbox};
use kevel_contract::{Scope, sandbox::SandboxStore};
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{StoreGetRequest, StoreGetResponse};

pub(super) async fn get(store: SandboxStore, scope: Scope, request: StoreGetRequest) -> Result<StoreGetResponse> {
    need_text("sandbox_id", &request.sandbox_id)?;
    let found = store.get(&scope, &request.sandbox_id).await?;
    Ok(StoreGetResponse { sandbox: Some(sandbox::wire(found)) })
}
