//! Events behind a socket.

use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};
use kevel_contract::{
    Scope,
    event::{Backend, Envelope, EventExchange},
};
use kevel_model::{Any, Filters, Result};
use kevel_proto::containerd::services::events::v1::{
    ForwardRequest, PublishRequest, SubscribeRequest, events_client::EventsClient,
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{any_wire, error::error, event},
    remote::{answer, client, request},
};

/// An exchange behind a socket.
pub fn events(remote: &Remote) -> EventExchange {
    EventExchange::new(remote.target(), RemoteEvents(remote.clone()))
}

struct RemoteEvents(Remote);

impl RemoteEvents {
    fn client(&self) -> EventsClient<Channel> {
        client!(EventsClient<Channel>, self.0)
    }
}

#[async_trait]
impl Backend for RemoteEvents {
    async fn publish(&self, scope: &Scope, topic: &str, event: Any) -> Result<()> {
        let message = PublishRequest { topic: topic.to_owned(), event: Some(any_wire(event)) };
        answer(self.client().publish(request(scope, message)?).await)
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        answer(self.client().forward(ForwardRequest { envelope: Some(event::wire(envelope)) }).await)
    }

    async fn subscribe(&self, filters: &Filters) -> Result<BoxStream<'static, Result<Envelope>>> {
        let message = SubscribeRequest { filters: filters.sources().to_vec() };
        let events = answer(self.client().subscribe(message).await)?;
        Ok(events.map(|envelope| event::read(Some(envelope.map_err(error)?))).boxed())
    }
}
