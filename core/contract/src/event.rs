//! Events: what happened to which object.

use std::{borrow::Cow, time::SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;
use kevel_model::{Adaptor, Any, Filters, Namespace, Result};
use kevel_plugin::Kind;

use crate::{Scope, call::handle};

/// The event exchange: `io.containerd.event.v1.exchange`.
pub enum Events {}

impl Kind for Events {
    const TYPE: &'static str = "io.containerd.event.v1";
    type Handle = EventExchange;
}

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// When it happened.
    pub timestamp: SystemTime,
    /// In which namespace.
    pub namespace: Namespace,
    /// What happened, e.g. `/tasks/exit`.
    pub topic: String,
    /// To what: a typed message.
    pub event: Any,
}

impl Adaptor for Envelope {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path {
            [name] if name == "topic" => Some(self.topic.as_str().into()),
            [name] if name == "namespace" => Some(self.namespace.as_str().into()),
            _ => None,
        }
    }
}

/// An exchange, for whoever writes one. Subscribers get what is published after they subscribed, in order. A slow
/// subscriber holds up nobody: its stream ends with "resource exhausted" when its bounded queue is full.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Publishes an event of this moment.
    async fn publish(&self, scope: &Scope, topic: &str, event: Any) -> Result<()>;
    /// Passes on an event from elsewhere.
    async fn forward(&self, envelope: Envelope) -> Result<()>;
    /// Subscribes to what matches.
    async fn subscribe(&self, filters: &Filters) -> Result<BoxStream<'static, Result<Envelope>>>;
}

handle! {
    /// An exchange, for whoever uses one.
    EventExchange over Backend {
        /// Publishes an event of this moment.
        fn publish(scope: &Scope, topic: &str, event: Any) -> ();
        /// Passes on an event from elsewhere.
        fn forward(envelope: Envelope) -> ();
        /// Subscribes to what matches.
        fn subscribe(filters: &Filters) -> BoxStream<'static, Result<Envelope>>;
    }
}
