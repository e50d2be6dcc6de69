//! Claims on names while a backend is at work on them, so that the garbage collector and writers of the same thing
//! don't meet. Held in memory only: a crash ends all work, and with it all claims.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Claims by name. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Claims(Arc<Table>);

#[derive(Default)]
struct Table {
    holders: Mutex<HashMap<String, Holders>>,
    released: Notify,
}

enum Holders {
    Shared(usize),
    Exclusive,
}

/// A claim; dropping it gives it up.
pub(crate) struct Claim {
    claims: Claims,
    name: String,
}

impl Claims {
    fn holders(&self) -> MutexGuard<'_, HashMap<String, Holders>> {
        self.0.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, name: &str) -> Claim {
        Claim { claims: self.clone(), name: name.to_owned() }
    }

    /// Claims a name together with others; waits while it is claimed alone.
    pub(crate) async fn share(&self, name: &str) -> Claim {
        loop {
            let released = self.0.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(claim) = self.try_share(name) {
                return claim;
            }
            released.await;
        }
    }

    fn try_share(&self, name: &str) -> Option<Claim> {
        match self.holders().entry(name.to_owned()).or_insert(Holders::Shared(0)) {
            Holders::Shared(count) => *count += 1,
            Holders::Exclusive => return None,
        }
        Some(self.claim(name))
    }

    /// Claims a name alone; waits while anybody has it.
    pub(crate) async fn alone(&self, name: &str) -> Claim {
        loop {
            let released = self.0.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(claim) = self.try_alone(name) {
                return claim;
            }
            released.await;
        }
    }

    /// Claims a name alone, unless somebody has it.
    pub(crate) fn try_alone(&self, name: &str) -> Option<Claim> {
        let mut holders = self.holders();
        if holders.contains_key(name) {
            return None;
        }
        holders.insert(name.to_owned(), Holders::Exclusive);
        Some(self.claim(name))
    }

    /// Whether somebody has the name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.holders().contains_key(name)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut holders = self.claims.holders();
        match holders.get_mut(&self.name) {
            Some(Holders::Shared(count)) if *count > 1 => *count -= 1,
            _ => {
                holders.remove(&self.name);
                self.claims.0.released.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shared_claims_keep_the_exclusive_one_out_and_wait_for_it() {
        let claims = Claims::default();
        let (first, second) = (claims.share("a").await, claims.share("a").await);
        drop(first);
        assert!(claims.try_alone("a").is_none() && claims.contains("a"));
        drop(second);
        let alone = claims.try_alone("a").unwrap();
        assert!(claims.try_share("a").is_none() && claims.try_share("b").is_some());
        let waiting = tokio::spawn({
            let claims = claims.clone();
            async move { drop(claims.share("a").await) }
        });
        tokio::task::yield_now().await;
        drop(alone);
        waiting.await.unwrap();
        assert!(!claims.contains("a"));
        let first = claims.alone("a").await;
        let waiting = tokio::spawn({
            let claims = claims.clone();
            async move { drop(claims.alone("a").await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        assert!(!claims.contains("a"));
    }
}
