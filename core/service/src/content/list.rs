//! Content.List: a hundred blobs in each message.

use futures::{StreamExt as _, stream};
use kevel_client::convert::content;
use kevel_contract::{Scope, content::ContentStore};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::content::v1::{ListContentRequest, ListContentResponse};

use crate::call::Items;

const PAGE: usize = 100;

pub(super) async fn list(
    store: ContentStore,
    scope: Scope,
    request: ListContentRequest,
) -> Result<Items<ListContentResponse>> {
    let found = store.list(&scope, &Filters::parse(&request.filters)?).await?;
    let pages = stream::iter(found).map(content::wire).chunks(PAGE);
    Ok(pages.map(|info| Ok(ListContentResponse { info })).boxed())
}
