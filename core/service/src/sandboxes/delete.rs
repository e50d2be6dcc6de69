//! Store.Delete

use kevel_client::convert::need_text;
use kevel_contract::{Scope, sandbox::SandboxStore};
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{StoreDeleteRequest, StoreDeleteResponse};

pub(super) async fn delete(
    store: SandboxStore,
    scope: Scope,
    request: StoreDeleteRequest,
) -> Result<StoreDeleteResponse> {
    need_text("sandbox_id", &request.sandbox_id)?;
    store.delete(&scope, &request.sandbox_id).await?;
    Ok(StoreDeleteResponse {})
}
