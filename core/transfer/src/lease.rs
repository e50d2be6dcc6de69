//! What keeps the objects of a transfer from the garbage collector until an image names them.
//!
//! Transfers without a lease of their caller's share one per namespace, which goes away with the last of them. Sharing
//! makes joining work safe: what another transfer made is kept by the same lease.
//!
//! A daemon that is killed leaves its leases. The next one keeps them for a while, so that a transfer that is asked for
//! again goes on with what is there, and then ends them.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use kevel_contract::{
    Scope,
    lease::{LABEL_EXPIRE, LeaseManager},
};
use kevel_model::{Filters, Labels, Namespace, Result};
use tokio::sync::Mutex;

/// A lease that its owner could not end, because the daemon was killed, ends by itself after this.
const EXPIRE: Duration = Duration::from_secs(24 * 3600);
/// A lease that is always in use is followed by another after this, long before it would expire.
const RENEW: Duration = Duration::from_secs(6 * 3600);
/// So long the leases of a daemon before are kept, at most: the kubelet asks again within five minutes. They go sooner with
/// the end of a transfer, which has what it needs of them by then.
const KEEP: Duration = Duration::from_secs(600);
/// What says that a lease was made here.
const OWN: &str = "io.kevel.transfer";

/// The leases in use, by namespace.
pub(crate) struct Leases {
    manager: LeaseManager,
    shared: Mutex<HashMap<Namespace, Weak<Held>>>,
    /// Those of a daemon before, and how long they are kept.
    left: Arc<Left>,
    keep: Duration,
}

/// Leases of a daemon before, by namespace.
#[derive(Default)]
struct Left(std::sync::Mutex<HashMap<Namespace, Vec<String>>>);

impl Left {
    fn take(&self, namespace: &Namespace) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace).unwrap_or_default()
    }
}

/// A lease in use; ended when dropped.
pub(crate) struct Held {
    scope: Scope,
    since: SystemTime,
    manager: LeaseManager,
    left: Arc<Left>,
    ours: bool,
}

impl Leases {
    pub(crate) fn new(manager: LeaseManager) -> Self {
        Self { manager, shared: Mutex::default(), left: Arc::default(), keep: KEEP }
    }

    /// A scope with a lease: the caller's if it has one.
    pub(crate) async fn hold(&self, scope: &Scope) -> Result<Arc<Held>> {
        let (manager, left) = (self.manager.clone(), self.left.clone());
        let held = |scope, ours| Held { scope, since: SystemTime::now(), manager, left, ours };
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
        let labels = Labels::from([(LABEL_EXPIRE.to_owned(), expire), (OWN.to_owned(), String::new())]);
        let lease = self.manager.create(scope, "", labels).await?;
        let lease = Arc::new(held(scope.with_lease(lease.id), true));
        shared.retain(|_, lease| lease.strong_count() > 0);
        shared.insert(scope.namespace.clone(), Arc::downgrade(&lease));
        Ok(lease)
    }

    /// Finds what a daemon before left in a namespace, and ends it after a while. To be called before the first transfer.
    pub(crate) async fn find_left(&self, namespace: &Namespace) -> Result<()> {
        let scope = Scope::new(namespace.clone());
        let leases = self.manager.list(&scope, &Filters::parse(&[format!("labels.\"{OWN}\"")])?).await?;
        if leases.is_empty() {
            return Ok(());
        }
        tracing::info!(%namespace, leases = leases.len(), "a daemon before left leases of transfers");
        let ids = leases.into_iter().map(|lease| lease.id).collect();
        self.left.0.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.clone(), ids);
        let (manager, left, keep) = (self.manager.clone(), Arc::downgrade(&self.left), self.keep);
        tokio::spawn(async move {
            tokio::time::sleep(keep).await;
            let Some(left) = left.upgrade() else { return };
            end(&manager, &scope, left.take(&scope.namespace)).await;
        });
        Ok(())
    }
}

async fn end(manager: &LeaseManager, scope: &Scope, leases: Vec<String>) {
    for id in leases {
        match manager.delete(scope, &id, false).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(lease = id, error = %error.chain(), "lease of a transfer is left to expire");
            }
            _ => {}
        }
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
        let (manager, scope) = (self.manager.clone(), Scope::new(self.scope.namespace.clone()));
        let mut leases = self.left.take(&scope.namespace);
        leases.push(id);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move { end(&manager, &scope, leases).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use kevel_contract::{
        call::Target,
        lease::{Backend, Lease, Resource},
    };
    use kevel_model::Error;

    /// Leases in memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<std::sync::Mutex<Vec<Lease>>>);

    #[async_trait]
    impl Backend for Memory {
        async fn create(&self, _: &Scope, id: &str, labels: Labels) -> Result<Lease> {
            let mut leases = self.0.lock().unwrap();
            let id = if id.is_empty() { format!("lease{}", leases.len()) } else { id.to_owned() };
            let lease = Lease { id, created_at: SystemTime::now(), labels };
            leases.push(lease.clone());
            Ok(lease)
        }
        async fn delete(&self, _: &Scope, id: &str, _: bool) -> Result<()> {
            let mut leases = self.0.lock().unwrap();
            let at = leases.iter().position(|lease| lease.id == id).ok_or_else(|| Error::not_found("no lease"))?;
            leases.remove(at);
            Ok(())
        }
        async fn list(&self, _: &Scope, filters: &Filters) -> Result<Vec<Lease>> {
            Ok(self.0.lock().unwrap().iter().filter(|lease| filters.matches(*lease)).cloned().collect())
        }
        async fn add(&self, _: &Scope, _: &str, _: Resource) -> Result<()> {
            unreachable!("nothing is kept")
        }
        async fn remove(&self, _: &Scope, _: &str, _: Resource) -> Result<()> {
            unreachable!("nothing is kept")
        }
        async fn resources(&self, _: &Scope, _: &str) -> Result<Vec<Resource>> {
            Ok(Vec::new())
        }
    }

    impl Memory {
        fn leases(&self) -> Leases {
            Leases::new(LeaseManager::new(Target::local("memory"), self.clone()))
        }

        fn ids(&self) -> Vec<String> {
            self.0.lock().unwrap().iter().map(|lease| lease.id.clone()).collect()
        }
    }

    /// A daemon that is killed with a transfer under way, and somebody else's lease.
    async fn killed() -> (Memory, Scope) {
        let (memory, scope) = (Memory::default(), Scope::new(Namespace::k8s()));
        memory.create(&scope, "foreign", Labels::new()).await.unwrap();
        std::mem::forget(memory.leases().hold(&scope).await.unwrap());
        (memory, scope)
    }

    async fn until_only_the_foreign_one_is_left(memory: &Memory) {
        let wait = async {
            while memory.ids() != ["foreign"] {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_killed_daemon_left_is_ended_after_a_while() {
        let (memory, scope) = killed().await;
        let leases = Leases { keep: Duration::from_millis(1), ..memory.leases() };
        leases.find_left(&scope.namespace).await.unwrap();
        until_only_the_foreign_one_is_left(&memory).await;
    }

    #[tokio::test]
    async fn what_a_killed_daemon_left_goes_with_the_end_of_the_last_transfer() {
        let (memory, scope) = killed().await;
        let leases = memory.leases();
        leases.find_left(&scope.namespace).await.unwrap();
        let (first, second) = (leases.hold(&scope).await.unwrap(), leases.hold(&scope).await.unwrap());
        drop(first);
        tokio::task::yield_now().await;
        assert_eq!(memory.ids(), ["foreign", "lease1", "lease2"]);
        drop(second);
        until_only_the_foreign_one_is_left(&memory).await;
    }
}
