//! Who may run plugins when (spec section 3, life cycle and ordering): one operation at a time for a container, any
//! number for different containers, and garbage collection alone.
//!
//! These locks are held while plugins run, because that is the rule; every plugin call has a deadline.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

#[derive(Default)]
pub(crate) struct Gate {
    everyone: Arc<RwLock<()>>,
    containers: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

/// The right to run plugins for one container.
pub(crate) struct Pass {
    _container: OwnedMutexGuard<()>,
    _everyone: OwnedRwLockReadGuard<()>,
}

impl Gate {
    pub(crate) async fn container(&self, id: &str) -> Pass {
        let lock = self.lock_of(id);
        // The container's first, so that a waiter for a busy container does not hold back garbage collection twice.
        let container = lock.lock_owned().await;
        Pass { _container: container, _everyone: self.everyone.clone().read_owned().await }
    }

    pub(crate) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.everyone.clone().write_owned().await
    }

    fn lock_of(&self, id: &str) -> Arc<AsyncMutex<()>> {
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = containers.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        // Growing is the time to forget containers that nobody works on.
        if containers.len() == containers.capacity() {
            containers.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(AsyncMutex::new(()));
        containers.insert(id.to_owned(), Arc::downgrade(&lock));
        lock
    }
}
