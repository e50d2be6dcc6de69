//! Store.Update

use kevel_client::convert::{need_text, sandbox};
use kevel_contract::{Scope, sandbox::SandboxStore};
use kevel_model::Result;
use kevel_proto::containerd::services::sandbox::v1::{StoreUpdateRequest, StoreUpdateResponse};

pub(super) async fn update(
    store: SandboxStore,
    scope: Scope,
    request: StoreUpdateRequest,
) -> Result<StoreUpdateResponse> {
    let update = sandbox::read(request.sandbox)?;
    need_text("sandbox.sandbox_id", &update.id)?;
    let updated = store.update(&scope, update, &request.fields).await?;
    Ok(StoreUpdateResponse { sandbox: Some(sandbox::wire(updated)) })
}
