//! Events.Subscribe

use futures::{StreamExt as _, TryStreamExt as _};
use kevel_client::convert::event;
use kevel_contract::event::EventExchange;
use kevel_model::{Filters, Result};
use kevel_proto::containerd::{services::events::v1::SubscribeRequest, types::Envelope};

use crate::call::Items;

pub(super) async fn subscribe(exchange: EventExchange, (): (), request: SubscribeRequest) -> Result<Items<Envelope>> {
    let events = exchange.subscribe(&Filters::parse(&request.filters)?).await?;
    Ok(events.map_ok(event::wire).boxed())
}
