//! Content.Info

use kevel_client::convert::content;
use kevel_contract::{Scope, content::ContentStore};
use kevel_model::Result;
use kevel_proto::containerd::services::content::v1::{InfoRequest, InfoResponse};

pub(super) async fn info(store: ContentStore, scope: Scope, request: InfoRequest) -> Result<InfoResponse> {
    let info = store.info(&scope, &content::digest("digest", &request.digest)?).await?;
    Ok(InfoResponse { info: Some(content::wire(info)) })
}
