//! The ttrpc Events service: shims forward their events to it.

use async_trait::async_trait;
use bytes::Bytes;
use kevel_client::convert::{error, event};
use kevel_contract::event::EventExchange;
use kevel_proto::shim::events::{ForwardRequest, method};
use kevel_ttrpc::{Context, Service, Status, server::unary};

use crate::call::own;

/// The event service of the shims.
pub struct ShimEvents(pub EventExchange);

#[async_trait]
impl Service for ShimEvents {
    async fn call(&self, name: &str, payload: Bytes, _: Context) -> Result<Bytes, Status> {
        if name != method::FORWARD {
            return Err(Status::unimplemented(format!("method {name}")));
        }
        let exchange = self.0.clone();
        unary(payload, |request: ForwardRequest| async move {
            let forwarded = own(async move { exchange.forward(event::read(request.envelope)?).await }).await;
            forwarded.map_err(|failure| {
                let code = i32::from(error::code_wire(failure.code()));
                Status::new(code.into(), failure.chain())
            })
        })
        .await
    }
}
