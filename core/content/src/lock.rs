//! One writer at a time per reference.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::error::{Error, Result};

/// The references that have a writer.
#[derive(Clone, Default)]
pub(crate) struct Locks(Arc<Mutex<HashMap<String, Slot>>>);

enum Slot {
    Writing,
    /// The writer was dropped and its last data is on the way to the file.
    Closing(Arc<Notify>),
}

/// The right to write to a reference, given back on drop.
pub(crate) struct Held {
    locks: Locks,
    reference: String,
}

impl Locks {
    fn with<T>(&self, use_map: impl FnOnce(&mut HashMap<String, Slot>) -> T) -> T {
        use_map(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the lock; waits only for a writer that is closing.
    pub(crate) async fn take(&self, reference: &str) -> Result<Held> {
        loop {
            let closing = self.with(|map| match map.get(reference) {
                None => {
                    map.insert(reference.to_owned(), Slot::Writing);
                    Ok(None)
                }
                Some(Slot::Writing) => Err(Error::Locked(reference.to_owned())),
                // Made under the lock, so that it hears of a close right after.
                Some(Slot::Closing(notify)) => Ok(Some(Arc::clone(notify).notified_owned())),
            })?;
            match closing {
                None => return Ok(Held { locks: self.clone(), reference: reference.to_owned() }),
                Some(closed) => closed.await,
            }
        }
    }
}

impl Held {
    /// Says that the writer only finishes what it has: the next one may wait.
    pub(crate) fn closing(&self) {
        self.locks.with(|map| map.insert(self.reference.clone(), Slot::Closing(Arc::default())));
    }

    /// A closer for a writer whose state is in use elsewhere.
    pub(crate) fn handle(&self) -> (Locks, String) {
        (self.locks.clone(), self.reference.clone())
    }
}

impl Locks {
    /// As [`Held::closing`], unless the lock was given back already.
    pub(crate) fn closing(&self, reference: &str) {
        self.with(|map| {
            if let Some(slot) = map.get_mut(reference) {
                *slot = Slot::Closing(Arc::default());
            }
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Slot::Closing(notify)) = self.locks.with(|map| map.remove(&self.reference)) {
            notify.notify_waiters();
        }
    }
}
