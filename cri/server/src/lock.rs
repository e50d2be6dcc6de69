//! Locks by name: operations on one pod or container wait for each other, operations on different ones don't.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Locks by name. A lock exists while somebody holds it or waits for it.
#[derive(Default)]
pub(crate) struct Locks {
    locks: Mutex<HashMap<String, Weak<RwLock<()>>>>,
}

impl Locks {
    /// Waits until nobody holds the name alone.
    pub(crate) async fn share(&self, name: &str) -> OwnedRwLockReadGuard<()> {
        self.lock(name).read_owned().await
    }

    /// Waits until nobody holds the name at all.
    pub(crate) async fn alone(&self, name: &str) -> OwnedRwLockWriteGuard<()> {
        self.lock(name).write_owned().await
    }

    fn lock(&self, name: &str) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.len() >= 64 && locks.len().is_power_of_two() {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(RwLock::new(()));
        locks.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }
}
