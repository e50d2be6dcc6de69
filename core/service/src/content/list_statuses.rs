//! Content.ListStatuses

use kevel_client::convert::content;
use kevel_contract::{Scope, content::ContentStore};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::content::v1::{ListStatusesRequest, ListStatusesResponse};

pub(super) async fn list_statuses(
    store: ContentStore,
    scope: Scope,
    request: ListStatusesRequest,
) -> Result<ListStatusesResponse> {
    let found = store.statuses(&scope, &Filters::parse(&request.filters)?).await?;
    Ok(ListStatusesResponse { statuses: found.into_iter().map(content::status_wire).collect() })
}
