//! Which shim belongs to which container, including those that are being started or taken up again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use tokio_util::sync::CancellationToken;

use super::Key;
use crate::{Error, Result, Role, Shim};

#[derive(Default)]
pub(super) struct Table {
    slots: Mutex<BTreeMap<Key, Slot>>,
}

enum Slot {
    /// Its shim is being started; nobody can use it yet.
    Starting,
    /// Its shim is being taken up after a restart; whoever wants it waits for the token.
    Loading(CancellationToken),
    Running(Arc<Shim>),
}

/// A place in the table for a shim that is on its way; dropped without a shim, it is free again.
pub(super) struct Place<'a> {
    table: &'a Table,
    key: Key,
    loading: Option<CancellationToken>,
    filled: bool,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a shim that is to be started.
    pub(super) fn reserve(&self, key: Key, role: Role) -> Result<Place<'_>> {
        let mut slots = self.lock();
        if slots.contains_key(&key) {
            return Err(Error::Exists { what: role.noun(), id: key.1, namespace: key.0.to_string() });
        }
        slots.insert(key.clone(), Slot::Starting);
        Ok(Place { table: self, key, loading: None, filled: false })
    }

    /// Takes a place for a shim that is to be taken up again; `None` when there is one already.
    pub(super) fn load(&self, key: Key) -> Option<Place<'_>> {
        let mut slots = self.lock();
        if slots.contains_key(&key) {
            return None;
        }
        let loading = CancellationToken::new();
        slots.insert(key.clone(), Slot::Loading(loading.clone()));
        Some(Place { table: self, key, loading: Some(loading), filled: false })
    }

    pub(super) async fn get(&self, key: &Key) -> Option<Arc<Shim>> {
        loop {
            let loading = match self.lock().get(key)? {
                Slot::Running(shim) => return Some(shim.clone()),
                Slot::Starting => return None,
                Slot::Loading(token) => token.clone(),
            };
            loading.cancelled().await;
        }
    }

    pub(super) async fn all(&self) -> Vec<Arc<Shim>> {
        let keys: Vec<Key> = self.lock().keys().cloned().collect();
        let mut shims = Vec::with_capacity(keys.len());
        for key in keys {
            shims.extend(self.get(&key).await);
        }
        shims
    }

    /// Everything in the table without waiting for anything: its shim, or what is being done about one.
    pub(super) fn states(&self) -> Vec<(Key, std::result::Result<Arc<Shim>, &'static str>)> {
        let state = |slot: &Slot| match slot {
            Slot::Starting => Err("starting"),
            Slot::Loading(_) => Err("loading"),
            Slot::Running(shim) => Ok(shim.clone()),
        };
        self.lock().iter().map(|(key, slot)| (key.clone(), state(slot))).collect()
    }

    /// Whether another container or sandbox needs the shim at the same address.
    pub(super) fn is_shared(&self, shim: &Shim) -> bool {
        self.lock().values().any(|slot| match slot {
            Slot::Running(other) => {
                !std::ptr::eq(&raw const **other, shim)
                    && other.bootstrap.address == shim.bootstrap.address
                    && !other.leaving.load(Ordering::Relaxed)
            }
            Slot::Starting | Slot::Loading(_) => false,
        })
    }

    /// Notes that a container or sandbox needs its shim no more; answers whether it was the last one at the shim's address.
    /// Of several that leave at the same time exactly one is told so.
    pub(super) fn leave(&self, shim: &Shim) -> bool {
        let slots = self.lock();
        shim.leaving.store(true, Ordering::Relaxed);
        let stays = |slot: &Slot| match slot {
            Slot::Running(other) => {
                other.bootstrap.address == shim.bootstrap.address && !other.leaving.load(Ordering::Relaxed)
            }
            Slot::Starting | Slot::Loading(_) => false,
        };
        !slots.values().any(stays)
    }

    /// Takes a shim out, if it is still the one in its place. Answers whether it was.
    pub(super) fn remove(&self, shim: &Shim) -> bool {
        let key = (shim.namespace.clone(), shim.id.clone());
        let mut slots = self.lock();
        let is_it = matches!(slots.get(&key), Some(Slot::Running(other)) if std::ptr::eq(&raw const **other, shim));
        if is_it {
            slots.remove(&key);
        }
        is_it
    }
}

impl Place<'_> {
    /// Fills the place.
    pub(super) fn fill(mut self, shim: Arc<Shim>) {
        self.table.lock().insert(self.key.clone(), Slot::Running(shim));
        self.filled = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.table.lock().remove(&self.key);
        }
        if let Some(loading) = &self.loading {
            loading.cancel();
        }
    }
}
