//! The exchange as a plugin: `io.containerd.event.v1.exchange`.

use kevel_contract::{
    call::Target,
    event::{EventExchange, Events},
};
use kevel_plugin::{InitContext, InitError};

use crate::Exchange;

/// Registers the exchange.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = Events;
    const ID: &'static str = "exchange";
    type Config = ();
    type Deps = ();

    async fn init(_: InitContext, _: (), _: ()) -> Result<EventExchange, InitError> {
        Ok(EventExchange::new(Target::local("event exchange"), Exchange::default()))
    }
}
