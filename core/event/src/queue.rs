//! The queue between the exchange and one subscriber.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use futures::{StreamExt as _, stream, stream::BoxStream};
use kevel_contract::event::Envelope;
use kevel_model::{Filters, Result};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::Error;

/// How much may wait for one subscriber.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Events.
    pub(crate) events: usize,
    /// Bytes in topics, type URLs and values.
    pub(crate) bytes: usize,
}

/// The exchange's end.
pub(crate) struct Subscriber {
    filters: Filters,
    sender: mpsc::Sender<Arc<Envelope>>,
    shared: Arc<Shared>,
    limits: Limits,
}

#[derive(Default)]
struct Shared {
    bytes: AtomicUsize,
    /// Set once, before the exchange lets go of a subscriber that is too slow.
    cut: OnceLock<Error>,
}

/// What became of an event for one subscriber.
#[derive(PartialEq, Eq)]
pub(crate) enum Offer {
    /// Queued, or not wanted.
    Done,
    /// The subscriber is to be dropped: gone or too slow.
    Drop,
}

impl Subscriber {
    /// Both ends of a new queue.
    pub(crate) fn new(filters: Filters, limits: Limits) -> (Self, BoxStream<'static, Result<Envelope>>) {
        let (sender, receiver) = mpsc::channel(limits.events);
        let shared = Arc::<Shared>::default();
        let stream = receive(receiver, Arc::clone(&shared));
        (Self { filters, sender, shared, limits }, stream)
    }

    /// Queues the event if the subscriber wants it; never waits.
    pub(crate) fn offer(&self, envelope: &Arc<Envelope>) -> Offer {
        if self.sender.is_closed() {
            return Offer::Drop;
        }
        if !self.filters.matches(envelope.as_ref()) {
            return Offer::Done;
        }
        let size = size(envelope);
        let waiting = self.shared.bytes.fetch_add(size, Ordering::Relaxed);
        // One event alone is always taken, however large.
        if waiting > 0 && waiting + size > self.limits.bytes {
            return self.cut(waiting);
        }
        match self.sender.try_send(Arc::clone(envelope)) {
            Ok(()) => Offer::Done,
            Err(TrySendError::Full(_)) => self.cut(waiting),
            Err(TrySendError::Closed(_)) => Offer::Drop,
        }
    }

    fn cut(&self, bytes: usize) -> Offer {
        let events = self.sender.max_capacity() - self.sender.capacity();
        let _ = self.shared.cut.set(Error::Slow { events, bytes }); // set by nobody else
        tracing::warn!(events, bytes, filters = ?self.filters.sources(), "event subscriber is too slow, cut off");
        Offer::Drop
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }
}

fn size(envelope: &Envelope) -> usize {
    envelope.topic.len() + envelope.event.type_url.len() + envelope.event.value.len()
}

/// What is queued; then, if the subscriber was cut off, why.
fn receive(receiver: mpsc::Receiver<Arc<Envelope>>, shared: Arc<Shared>) -> BoxStream<'static, Result<Envelope>> {
    stream::unfold(Some((receiver, shared)), |state| async {
        let (mut receiver, shared) = state?;
        match receiver.recv().await {
            Some(envelope) => {
                shared.bytes.fetch_sub(size(&envelope), Ordering::Relaxed);
                Some((Ok(Arc::unwrap_or_clone(envelope)), Some((receiver, shared))))
            }
            None => {
                let Error::Slow { events, bytes } = shared.cut.get()? else { return None };
                Some((Err(Error::Slow { events: *events, bytes: *bytes }.into()), None))
            }
        }
    })
    .boxed()
}
