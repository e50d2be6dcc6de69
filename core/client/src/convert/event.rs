//! Events.

use kevel_contract::event::Envelope;
use kevel_model::{Error, Namespace, Result};
use kevel_proto::containerd::types as proto;

use super::{any_read, any_wire, need, need_text, time_read, time_wire};

/// For the wire.
pub fn wire(envelope: Envelope) -> proto::Envelope {
    proto::Envelope {
        timestamp: time_wire(envelope.timestamp),
        namespace: envelope.namespace.to_string(),
        topic: envelope.topic,
        event: Some(any_wire(envelope.event)),
    }
}

/// From the wire.
pub fn read(envelope: Option<proto::Envelope>) -> Result<Envelope> {
    let envelope = need("envelope", envelope)?;
    need("envelope.timestamp", envelope.timestamp)?;
    need_text("envelope.topic", &envelope.topic)?;
    let namespace = Namespace::new(&envelope.namespace);
    Ok(Envelope {
        timestamp: time_read("envelope.timestamp", envelope.timestamp)?,
        namespace: namespace.map_err(|error| Error::from(error).context("envelope.namespace"))?,
        topic: envelope.topic,
        event: any_read(need("envelope.event", envelope.event)?),
    })
}
