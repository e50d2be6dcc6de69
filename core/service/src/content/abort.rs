//! Content.Abort

use kevel_client::convert::need_text;
use kevel_contract::{Scope, content::ContentStore};
use kevel_model::Result;
use kevel_proto::containerd::services::content::v1::AbortRequest;

pub(super) async fn abort(store: ContentStore, scope: Scope, request: AbortRequest) -> Result<()> {
    need_text("ref", &request.r#ref)?;
    store.abort(&scope, &request.r#ref).await
}
