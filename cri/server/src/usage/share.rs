//! Readings that callers share: who asks for the same while it is read, or shortly after, gets what was read. Monitors
//! that scrape at the same second cost one reading.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

/// How old an answer may be. What kubelet does with one is slower by far.
const MAX_AGE: Duration = Duration::from_millis(100);

type Cell<T> = Arc<OnceCell<(Instant, Arc<T>)>>;

/// Readings by what was asked for.
pub(crate) struct Shared<T>(Mutex<HashMap<Vec<u8>, Cell<T>>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Shared<T> {
    /// The reading for `key`: one that is under way or new enough, else `read`'s. A caller that goes away in the middle
    /// leaves it to the next who waits.
    pub(crate) async fn get(&self, key: Vec<u8>, read: impl Future<Output = T>) -> Arc<T> {
        let cell = {
            let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            cells.retain(|_, cell| cell.get().is_none_or(|(at, _)| at.elapsed() < MAX_AGE));
            cells.entry(key).or_default().clone()
        };
        let read = async {
            let begun = Instant::now(); // what is read may be as old as that
            (begun, Arc::new(read.await))
        };
        cell.get_or_init(|| read).await.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn equal_questions_at_once_are_one() {
        let (shared, reads, go) = (Shared::default(), AtomicUsize::new(0), Notify::new());
        let ask = async |key: &str| {
            let read = async {
                go.notified().await;
                reads.fetch_add(1, Ordering::Relaxed)
            };
            *shared.get(key.as_bytes().to_vec(), read).await
        };
        let all = join_all((0..50).map(|_| ask("a")));
        let other = ask("b");
        let (all, _, ()) = tokio::join!(all, other, async {
            go.notify_one();
            tokio::task::yield_now().await;
            go.notify_one();
        });
        assert!(all.iter().all(|answer| *answer == all[0]), "{all:?}");
        assert_eq!(reads.load(Ordering::Relaxed), 2, "one for each question");
    }

    #[tokio::test]
    async fn one_who_goes_away_leaves_it_to_the_next_and_old_answers_are_none() {
        let shared = Shared::default();
        let never = shared.get(b"a".to_vec(), std::future::pending::<u32>());
        let next = shared.get(b"a".to_vec(), async { 1 });
        let (never, next) = (Box::pin(never), Box::pin(next));
        // The first is polled once and dropped.
        drop(futures::future::select(never, futures::future::ready(())).await);
        assert_eq!(*next.await, 1);
        let old = || {
            let cells = shared.0.lock().unwrap();
            cells[b"a".as_slice()].get().unwrap().0.elapsed() >= MAX_AGE
        };
        while !old() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*shared.get(b"a".to_vec(), async { 2 }).await, 2);
        assert_eq!(shared.0.lock().unwrap().len(), 1);
    }
}
