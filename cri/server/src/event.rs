//! Container events for the kubelet: one bounded queue for each subscriber.

use kevel_proto::runtime::v1::ContainerEventResponse;
use tokio::sync::broadcast;

/// How many events a subscriber may be behind.
const QUEUE: usize = 1024;

/// Who listens to container events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hub {
    sender: broadcast::Sender<ContainerEventResponse>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(QUEUE) }
    }
}

impl Hub {
    /// Whether anybody listens; an event that nobody hears need not be made.
    pub(crate) fn is_heard(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Tells everybody.
    pub(crate) fn publish(&self, event: ContainerEventResponse) {
        let _ = self.sender.send(event); // fails only when nobody listens
    }

    /// Listens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.sender.subscribe()
    }
}
