//! Container events for the kubelet: one bounded queue for each subscriber, that nobody who publishes ever waits for.
//!
//! An event is made while the index is changed, with the stamp of that change, so that events come in the order of
//! their stamps and a status that was read with a later stamp has every event's change in it. A subscriber that is slow
//! first gets fewer events: of one container only the last is kept, which has everything that those before it had,
//! because each carries the whole pod. One that stays slow is told that it missed events.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::ContainerEventType;
use tokio::sync::Notify;

use crate::index::{Pod, Snapshot};

/// From here on of one container only the last event waits.
const SOFT: usize = 1024;
/// The most that waits for one subscriber.
const HARD: usize = 8192;
/// How many may listen at once; a node has one kubelet.
const SUBSCRIBERS: usize = 64;

/// Something that happened, with everything as it was right after.
pub(crate) struct Event {
    /// When, in nanoseconds since the epoch; no two changes have the same.
    pub(crate) stamp: i64,
    /// What.
    pub(crate) what: ContainerEventType,
    /// The container, or the pod itself.
    pub(crate) container: String,
    /// Its pod; of a pod that was removed, as it was before.
    pub(crate) pod: Arc<Pod>,
    /// Everything.
    pub(crate) now: Snapshot,
}

/// Who listens to container events.
#[derive(Default)]
pub(crate) struct Hub {
    queues: Mutex<Vec<Weak<Queue>>>,
    left_out: AtomicU64,
}

/// The events that wait for one subscriber.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    events: BTreeMap<u64, Arc<Event>>,
    last: HashMap<String, u64>,
    next: u64,
    overrun: bool,
}

impl Hub {
    fn with<T>(&self, use_all: impl FnOnce(&mut Vec<Weak<Queue>>) -> T) -> T {
        use_all(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether anybody listens; an event that nobody hears need not be made.
    pub(crate) fn is_heard(&self) -> bool {
        self.with(|queues| queues.iter().any(|queue| queue.strong_count() > 0))
    }

    /// Tells everybody.
    pub(crate) fn publish(&self, event: Event) {
        let event = Arc::new(event);
        self.with(|queues| {
            queues.retain(|queue| {
                let Some(queue) = queue.upgrade() else { return false };
                self.left_out.fetch_add(queue.push(event.clone()), Ordering::Relaxed);
                true
            });
        });
    }

    /// Listens from now on.
    ///
    /// # Errors
    /// Resource exhausted when too many listen.
    pub(crate) fn subscribe(&self) -> Result<Arc<Queue>> {
        self.with(|queues| {
            queues.retain(|queue| queue.strong_count() > 0);
            if queues.len() >= SUBSCRIBERS {
                return Err(Error::resource_exhausted(format!("{SUBSCRIBERS} listen to container events already")));
            }
            let queue = Arc::new(Queue::default());
            queues.push(Arc::downgrade(&queue));
            Ok(queue)
        })
    }

    /// How many events slow subscribers did not get.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; answers how many others were left out for it.
    fn push(&self, event: Arc<Event>) -> u64 {
        let left_out = self.lock().push(event);
        self.news.notify_one();
        left_out
    }

    /// The next event.
    ///
    /// # Errors
    /// Resource exhausted when events were missed; there are no more after it.
    pub(crate) async fn next(&self) -> Result<Arc<Event>> {
        loop {
            {
                let mut waiting = self.lock();
                if waiting.overrun {
                    return Err(Error::resource_exhausted(
                        "events were not read in time and are missing; list everything and subscribe again",
                    ));
                }
                if let Some((number, event)) = waiting.events.pop_first() {
                    if waiting.last.get(&event.container) == Some(&number) {
                        waiting.last.remove(&event.container);
                    }
                    return Ok(event);
                }
            }
            self.news.notified().await; // of one that came meanwhile, too: it leaves a permit
        }
    }
}

impl Waiting {
    fn push(&mut self, event: Arc<Event>) -> u64 {
        if self.overrun {
            return 1;
        }
        let mut left_out = 0;
        if self.events.len() >= SOFT
            && let Some(before) = self.last.get(&event.container)
            && self.events.remove(before).is_some()
        {
            left_out += 1;
        }
        if self.events.len() >= HARD {
            left_out += u64::try_from(self.events.len()).unwrap_or(u64::MAX);
            self.events.clear();
            self.last.clear();
            self.overrun = true;
            return left_out + 1;
        }
        self.last.insert(event.container.clone(), self.next);
        self.events.insert(self.next, event);
        self.next += 1;
        left_out
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use kevel_model::Code;

    use super::*;
    use crate::record::{Phase, SandboxRecord};

    fn event(stamp: i64, container: &str) -> Event {
        let record = SandboxRecord {
            id: "p".into(),
            name: "n".into(),
            config: Default::default(),
            handler: String::new(),
            sandboxer: String::new(),
            netns: String::new(),
            network: None,
            phase: Phase::Ready,
            labels: Default::default(),
            created_at: 0,
            pid: 0,
            address: String::new(),
            api: 0,
            overhead: None,
            resources: None,
        };
        Event {
            stamp,
            what: ContainerEventType::ContainerStartedEvent,
            container: container.to_owned(),
            pod: Arc::new(Pod::new(record)),
            now: Snapshot::default(),
        }
    }

    async fn stamps(queue: &Queue, count: usize) -> Vec<i64> {
        let mut stamps = Vec::new();
        for _ in 0..count {
            stamps.push(queue.next().await.unwrap().stamp);
        }
        stamps
    }

    #[tokio::test]
    async fn everybody_gets_everything_in_order() {
        let hub = Hub::default();
        assert!(!hub.is_heard());
        let (one, other) = (hub.subscribe().unwrap(), hub.subscribe().unwrap());
        for stamp in 0..10 {
            hub.publish(event(stamp, "c"));
        }
        let want: Vec<i64> = (0..10).collect();
        assert_eq!((stamps(&one, 10).await, stamps(&other, 10).await), (want.clone(), want));
        assert!(one.next().now_or_never().is_none());
        drop((one, other));
        hub.publish(event(11, "c"));
        assert!(!hub.is_heard());
    }

    #[tokio::test]
    async fn a_slow_one_keeps_the_last_event_of_each_container() {
        let hub = Hub::default();
        let (slow, fast) = (hub.subscribe().unwrap(), hub.subscribe().unwrap());
        let soft = i64::try_from(SOFT).unwrap();
        for stamp in 0..soft + 50 {
            hub.publish(event(stamp, ["a", "b"][usize::try_from(stamp % 2).unwrap()]));
            assert_eq!(fast.next().await.unwrap().stamp, stamp);
        }
        assert_eq!(hub.left_out(), 50);
        // The first ones wait as they came; the last two of "a" and "b" are there, and those between are not.
        let got = stamps(&slow, SOFT).await;
        assert_eq!(got[..SOFT - 2], (0..soft - 2).collect::<Vec<_>>());
        assert_eq!(got[SOFT - 2..], [soft + 48, soft + 49]);
    }

    #[tokio::test]
    async fn one_that_stays_slow_is_told_and_hurts_nobody() {
        let hub = Hub::default();
        let (slow, fast) = (hub.subscribe().unwrap(), hub.subscribe().unwrap());
        for stamp in 0..=i64::try_from(HARD).unwrap() {
            hub.publish(event(stamp, &stamp.to_string()));
            assert_eq!(fast.next().await.unwrap().stamp, stamp);
        }
        let Err(error) = slow.next().await else { panic!("nothing is missing") };
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(hub.left_out(), u64::try_from(HARD).unwrap() + 1);
    }

    #[test]
    fn there_are_not_too_many() {
        let hub = Hub::default();
        let kept: Vec<_> = (0..SUBSCRIBERS).map(|_| hub.subscribe().unwrap()).collect();
        assert!(hub.subscribe().is_err());
        drop(kept);
        assert!(hub.subscribe().is_ok());
    }
}
