//! Content.Delete

use kevel_client::convert::content;
use kevel_contract::{Scope, content::ContentStore};
use kevel_model::Result;
use kevel_proto::containerd::services::content::v1::DeleteContentRequest;

pub(super) async fn delete(store: ContentStore, scope: Scope, request: DeleteContentRequest) -> Result<()> {
    store.delete(&scope, &content::digest("digest", &request.digest)?).await
}
