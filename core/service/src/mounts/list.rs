//! Mounts.List: one activation in each message.

use futures::{StreamExt as _, stream};
use kevel_client::convert::mounts;
use kevel_contract::{Scope, mounts::MountManager};
use kevel_model::{Filters, Result};
use kevel_proto::containerd::services::mounts::v1::{ListMessage, ListRequest};

use crate::call::Items;

pub(super) async fn list(manager: MountManager, scope: Scope, request: ListRequest) -> Result<Items<ListMessage>> {
    let found = manager.list(&scope, &Filters::parse(&request.filters)?).await?;
    Ok(stream::iter(found).map(|found| Ok(ListMessage { info: Some(mounts::wire(found)) })).boxed())
}
