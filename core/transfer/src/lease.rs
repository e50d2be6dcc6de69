//! What keeps the objects of a transfer from the garbage collector until an image names them.
//!
//! Transfers without a lease of their caller's share one per namespace, which goes away with the last of them. Sharing
//! makes joining work safe: what another transfer made is kept by the same lease.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use kevel_contract::{
    Scope,
    lease::{LABEL_EXPIRE, LeaseManager},
};
use kevel_model::{Labels, Namespace, Result};
use tokio::sync::Mutex;

/// A lease that its owner could not end, because the daemon was killed, ends by itself after this.
const EXPIRE: Duration = Duration::from_secs(24 * 3600);
/// A lease that is always in use is followed by another after this, long before it would expire.
const RENEW: Duration = Duration::from_secs(6 * 3600);

/// The leases in use, by namespace.
pub(crate) struct Leases {
    manager: LeaseManager,
    shared: Mutex<HashMap<Namespace, Weak<Held>>>,
}

/// A lease in use; ended when dropped.
pub(crate) struct Held {
    scope: Scope,
    since: SystemTime,
    manager: LeaseManager,
    ours: bool,
}

impl Leases {
    pub(crate) fn new(manager: LeaseManager) -> Self {
        Self { manager, shared: Mutex::default() }
    }

    /// A scope with a lease: the caller's if it has one.
    pub(crate) async fn hold(&self, scope: &Scope) -> Result<Arc<Held>> {
        let held = |scope, ours| Held { scope, since: SystemTime::now(), manager: self.manager.clone(), ours };
        if scope.lease.is_some() {
            return Ok(Arc::new(held(scope.clone(), false)));
        }
        // Held across the creation on purpose: a second transfer waits for the lease instead of making another.
        let mut shared = self.shared.lock().await;
        if let Some(lease) = shared.get(&scope.namespace).and_then(Weak::upgrade)
            && lease.since.elapsed().is_ok_and(|age| age < RENEW)
        {
            return Ok(lease);
        }
        let expire = crate::labels::rfc3339(SystemTime::now() + EXPIRE);
        let lease = self.manager.create(scope, "", Labels::from([(LABEL_EXPIRE.to_owned(), expire)])).await?;
        let lease = Arc::new(held(scope.with_lease(lease.id), true));
        shared.retain(|_, lease| lease.strong_count() > 0);
        shared.insert(scope.namespace.clone(), Arc::downgrade(&lease));
        Ok(lease)
    }
}

impl Held {
    /// The namespace under the lease.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(id) = self.scope.lease.clone().filter(|_| self.ours) else { return };
        let (manager, scope) = (self.manager.clone(), self.scope.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = manager.delete(&Scope::new(scope.namespace), &id, false).await {
                tracing::warn!(lease = id, error = %error.chain(), "lease of a transfer is left to expire");
            }
        });
    }
}
