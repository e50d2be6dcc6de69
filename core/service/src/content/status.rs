//! Content.Status

use kevel_client::convert::{content, need_text};
use kevel_contract::{Scope, content::ContentStore};
use kevel_model::Result;
use kevel_proto::containerd::services::content::v1::{StatusRequest, StatusResponse};

pub(super) async fn status(store: ContentStore, scope: Scope, request: StatusRequest) -> Result<StatusResponse> {
    need_text("ref", &request.r#ref)?;
    let status = store.status(&scope, &request.r#ref).await?;
    Ok(StatusResponse { status: Some(content::status_wire(status)) })
}
