//! `containerd.services.events.v1.Events` over an exchange, and `containerd.services.events.ttrpc.v1.Events`, on which
//! shims report.

mod forward;
mod publish;
mod shim;
mod subscribe;

pub use shim::ShimEvents;

use kevel_contract::event::EventExchange;
use kevel_proto::containerd::{
    services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest},
    types::Envelope,
};

crate::call::service! {
    /// The event service.
    Events over EventExchange as EventsServer in kevel_proto::containerd::services::events::v1::events_server {
        change publish(PublishRequest) -> ();
        alter forward(ForwardRequest) -> ();
    } streams {
        look_stream subscribe(SubscribeRequest) -> SubscribeStream of Envelope;
    }
}
