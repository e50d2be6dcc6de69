//! Content.Update

use kevel_client::convert::{content, paths};
use kevel_contract::{Scope, content::ContentStore};
use kevel_model::Result;
use kevel_proto::containerd::services::content::v1::{UpdateRequest, UpdateResponse};

pub(super) async fn update(store: ContentStore, scope: Scope, request: UpdateRequest) -> Result<UpdateResponse> {
    let info = store.update(&scope, content::read(request.info)?, &paths(request.update_mask)).await?;
    Ok(UpdateResponse { info: Some(content::wire(info)) })
}
