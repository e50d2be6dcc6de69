//! Events.Forward

use kevel_client::convert::event;
use kevel_contract::event::EventExchange;
use kevel_model::Result;
use kevel_proto::containerd::services::events::v1::ForwardRequest;

pub(super) async fn forward(exchange: EventExchange, (): (), request: ForwardRequest) -> Result<()> {
    exchange.forward(event::read(request.envelope)?).await
}
