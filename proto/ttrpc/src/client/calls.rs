//! The calls that wait for an answer, and whether the connection still lives.

use crate::error::Error;
use crate::queue;
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Where the answer to a call goes.
pub(super) enum Slot {
    /// The one answer.
    Unary(oneshot::Sender<Result<Bytes, Error>>),
    /// Messages, then the end: an error, or the sender being dropped.
    Stream(queue::Sender<Result<Bytes, Error>>),
}

impl Slot {
    /// Ends the call with an error.
    pub(super) fn fail(self, error: Error) {
        match self {
            Self::Unary(answer) => drop(answer.send(Err(error))), // a caller that left wants no answer
            Self::Stream(messages) => messages.send_last(Err(error)),
        }
    }
}

/// Every call of a connection by stream id.
#[derive(Default)]
pub(super) struct Calls {
    table: Mutex<Table>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Table {
    slots: HashMap<u32, Slot>,
    /// The id used last; zero before the first.
    last: u32,
    reason: Option<Arc<io::Error>>,
}

/// A call that has a slot; dropping it frees the slot.
pub(super) struct Pending {
    calls: Arc<Calls>,
    pub(super) stream: u32,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.calls.take(self.stream);
    }
}

impl Calls {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner) // no code that can panic runs under the lock
    }

    /// Gives the call the next stream id and hands it to `send`, which must not block, while no other call can.
    pub(super) fn open(this: &Arc<Self>, slot: Slot, send: impl FnOnce(u32)) -> Result<Pending, Error> {
        let mut table = this.table();
        if this.is_closed() {
            return Err(Error::Closed(table.reason.clone()));
        }
        let stream = if table.last == 0 { Some(1) } else { table.last.checked_add(2) };
        let Some(stream) = stream else {
            drop(table);
            let spent = io::Error::other("every stream id of the connection has been used");
            this.close(Some(spent));
            return Err(this.reason());
        };
        table.last = stream;
        table.slots.insert(stream, slot);
        send(stream);
        drop(table);
        Ok(Pending { calls: this.clone(), stream })
    }

    /// The queue of a stream, or `None` when `stream` is a unary call or nothing that waits.
    pub(super) fn queue(&self, stream: u32) -> Option<queue::Sender<Result<Bytes, Error>>> {
        match self.table().slots.get(&stream)? {
            Slot::Stream(messages) => Some(messages.clone()),
            Slot::Unary(_) => None,
        }
    }

    /// Takes a call out, so that nothing more is delivered to it.
    pub(super) fn take(&self, stream: u32) -> Option<Slot> {
        let mut table = self.table();
        let slot = table.slots.remove(&stream);
        if table.slots.is_empty() && table.slots.capacity() > 64 {
            table.slots = HashMap::new(); // a burst leaves no large table behind
        }
        slot
    }

    /// Whether `stream` can still be sent on: [`Error::Ended`] or [`Error::Closed`] if not.
    pub(super) fn check_open(&self, stream: u32) -> Result<(), Error> {
        let table = self.table();
        if self.is_closed() {
            Err(Error::Closed(table.reason.clone()))
        } else if table.slots.contains_key(&stream) {
            Ok(())
        } else {
            Err(Error::Ended)
        }
    }

    /// Fails every call. The first reason is kept.
    pub(super) fn close(&self, reason: Option<io::Error>) {
        let mut table = self.table();
        if self.closed.is_cancelled() {
            return;
        }
        table.reason = reason.map(Arc::new);
        self.closed.cancel(); // under the lock: `open` either sees it or has its slot failed below
        let reason = table.reason.clone();
        let slots = std::mem::take(&mut table.slots);
        drop(table);
        for slot in slots.into_values() {
            slot.fail(Error::Closed(reason.clone()));
        }
    }

    /// The error for calls on a closed connection.
    pub(super) fn reason(&self) -> Error {
        Error::Closed(self.table().reason.clone())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}
