//! How large writable layers are. Counting one walks its directory, so it is done on the side: who asks gets the last
//! count at once, and a layer that is large is counted more rarely. Only on a disk that is nearly full he gets a new one: from
//! it kubelet chooses the pod to evict.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kevel_contract::snapshot::Usage;
use kevel_model::{Error, Result};
use tokio::sync::{Semaphore, watch};

use crate::identity;

/// How long the first who asks for a layer waits for its count.
const FIRST: Duration = Duration::from_secs(2);
/// How old a count may be for somebody who wants a new one.
const FRESH: Duration = Duration::from_secs(1);
/// Counting a layer takes at most this part of the time.
const SHARE: u32 = 20;
/// How many layers are counted at once.
const AT_ONCE: usize = 2;
/// More layers than a node has; the longest unused is forgotten then.
const LAYERS: usize = 16_384;

/// A layer by its snapshotter and key.
type Key = (String, String);

/// A count, and when it was finished, in nanoseconds since the epoch.
pub(crate) type Counted = (Usage, i64);

/// Counts of layers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Layers(Arc<Inner>);

struct Inner {
    period: Duration,
    known: Mutex<HashMap<Key, Entry>>,
    counting: Semaphore,
}

/// What somebody finds who asks for a layer.
struct Visit {
    last: watch::Receiver<Option<Counted>>,
    counted: Option<Counted>,
    counting: bool,
    /// It is his to begin a count.
    due: bool,
}

struct Entry {
    last: watch::Sender<Option<Counted>>,
    counting: bool,
    finished: Instant,
    took: Duration,
    asked: Instant,
}

impl Layers {
    /// No layer is counted more often than once in `period`.
    pub(crate) fn new(period: Duration) -> Self {
        Self(Arc::new(Inner { period, known: Mutex::default(), counting: Semaphore::new(AT_ONCE) }))
    }

    /// The last count of a layer; `count` is called when it is time for another. None when the first count is not done
    /// within 2 seconds; it goes on. Who wants a `new` one says until when he waits for it.
    pub(crate) async fn get<F>(
        &self,
        snapshotter: &str,
        key: &str,
        new: Option<Instant>,
        count: impl FnOnce() -> F,
    ) -> Option<Counted>
    where
        F: Future<Output = Result<Usage>> + Send + 'static,
    {
        let key = (snapshotter.to_owned(), key.to_owned());
        let Visit { mut last, counted, counting, due } = self.visit(&key, new.is_some());
        if due {
            tokio::spawn(self.clone().count(key, count()));
        }
        match (counted, new) {
            (Some(_), Some(until)) if counting => {
                let _ = tokio::time::timeout_at(until.into(), last.changed()).await; // the old one is better than none
                let new = *last.borrow();
                new.or(counted)
            }
            (Some(_), _) => counted,
            (None, _) => {
                let counted = tokio::time::timeout(FIRST, last.wait_for(Option::is_some)).await;
                counted.ok().and_then(std::result::Result::ok).and_then(|counted| *counted)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn visit(&self, key: &Key, new: bool) -> Visit {
        let now = Instant::now();
        let mut known = self.lock();
        if known.len() >= LAYERS && !known.contains_key(key) {
            let oldest = known.iter().min_by_key(|(_, entry)| entry.asked).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        let entry = known.entry(key.clone()).or_insert_with(|| Entry {
            last: watch::Sender::new(None),
            counting: false,
            finished: now,
            took: Duration::ZERO,
            asked: now,
        });
        entry.asked = now;
        let age = now.duration_since(entry.finished);
        let period = if new { self.0.period.min(FRESH) } else { self.0.period };
        let counted = *entry.last.borrow();
        let due = !entry.counting && (counted.is_none() || age >= period.max(entry.took.saturating_mul(SHARE)));
        entry.counting |= due;
        Visit { last: entry.last.subscribe(), counted, counting: entry.counting, due }
    }

    async fn count(self, key: Key, count: impl Future<Output = Result<Usage>>) {
        let outcome = match self.0.counting.acquire().await {
            Ok(_permit) => {
                let began = Instant::now();
                count.await.map(|usage| (usage, began.elapsed()))
            }
            Err(closed) => Err(Error::internal("counting a layer").with_source(closed)),
        };
        let mut known = self.lock();
        let Some(entry) = known.get_mut(&key) else { return };
        entry.counting = false;
        entry.finished = Instant::now();
        match outcome {
            Ok((usage, took)) => {
                entry.took = took;
                entry.last.send_replace(Some((usage, identity::now())));
            }
            // A layer that is gone is nobody's; who waits for it is told by the end of the channel.
            Err(_) => drop(known.remove(&key)),
        }
    }

    /// Forgets a layer that was removed.
    pub(crate) fn forget(&self, snapshotter: &str, key: &str) {
        self.lock().remove(&(snapshotter.to_owned(), key.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn usage(size: u64) -> Usage {
        Usage { size, inodes: 1 }
    }

    #[tokio::test]
    async fn counts_once_in_a_period_whoever_asks() {
        let layers = Layers::new(Duration::from_secs(3600));
        let calls = Arc::new(AtomicU64::new(0));
        let count = || {
            let calls = calls.clone();
            move || async move { Ok(usage(calls.fetch_add(1, Ordering::SeqCst))) }
        };
        let (one, other) = tokio::join!(layers.get("s", "k", None, count()), layers.get("s", "k", None, count()));
        assert_eq!((one.unwrap().0, other.unwrap().0), (usage(0), usage(0)));
        assert_eq!(layers.get("s", "k", None, count()).await.unwrap().0, usage(0));
        assert_eq!(layers.get("s", "other", None, count()).await.unwrap().0, usage(1));
        layers.forget("s", "k");
        assert_eq!(layers.get("s", "k", None, count()).await.unwrap().0, usage(2));
    }

    #[tokio::test]
    async fn the_old_count_is_answered_while_a_new_one_is_made() {
        let layers = Layers::new(Duration::ZERO);
        layers.get("s", "k", None, || async { Ok(usage(1)) }).await.unwrap();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let slow = || async move {
            let _ = wait.await;
            Ok(usage(2))
        };
        // The first count took no time to speak of, so another is due as soon as a moment has passed.
        let mut last = layers.visit(&("s".into(), "k".into()), false).last;
        layers.lock().values_mut().for_each(|entry| (entry.counting, entry.took) = (false, Duration::ZERO));
        assert_eq!(layers.get("s", "k", None, slow).await.unwrap().0, usage(1));
        last.borrow_and_update();
        go.send(()).unwrap();
        last.changed().await.unwrap();
        assert_eq!(last.borrow().unwrap().0, usage(2));
    }

    #[tokio::test]
    async fn who_wants_a_new_count_waits_for_it() {
        let layers = Layers::new(Duration::from_secs(3600));
        let old = layers.get("s", "k", None, || async { Ok(usage(1)) }).await;
        let later = || Some(Instant::now() + Duration::from_secs(60));
        let fresh = layers.get("s", "k", later(), || async { panic!("counted a moment ago") }).await;
        assert_eq!(fresh, old);
        let age = || layers.lock().values_mut().for_each(|entry| entry.finished -= FRESH);
        age();
        assert_eq!(layers.get("s", "k", None, || async { panic!("new enough") }).await, old);
        assert_eq!(layers.get("s", "k", later(), || async { Ok(usage(2)) }).await.unwrap().0, usage(2));
        age();
        let never = layers.get("s", "k", Some(Instant::now()), std::future::pending).await;
        assert_eq!(never.unwrap().0, usage(2), "what takes too long is not waited for");
    }

    #[tokio::test]
    async fn a_layer_that_is_gone_is_answered_at_once_and_forgotten() {
        let layers = Layers::new(Duration::from_secs(3600));
        let gone = layers.get("s", "k", None, || async { Err(Error::not_found("gone")) }).await;
        assert!(gone.is_none() && layers.lock().is_empty());
    }
}
