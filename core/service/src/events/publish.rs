//! Events.Publish

use kevel_client::convert::{any_read, need, need_text};
use kevel_contract::{Scope, event::EventExchange};
use kevel_model::Result;
use kevel_proto::containerd::services::events::v1::PublishRequest;

pub(super) async fn publish(exchange: EventExchange, scope: Scope, request: PublishRequest) -> Result<()> {
    need_text("topic", &request.topic)?;
    let event = any_read(need("event", request.event)?);
    exchange.publish(&scope, &request.topic, event).await
}
