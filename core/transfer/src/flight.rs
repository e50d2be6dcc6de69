//! Work that is done once, however many ask for it at the same time.
//!
//! The work is a task of its own. Whoever asks holds a ticket; when the last ticket is dropped before the work is done,
//! the work is told to stop, and cleans up after itself.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use kevel_model::{Code, Error, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// A failure that many can be told of.
#[derive(Clone, Debug)]
struct Failure {
    code: Code,
    message: String,
}

type Outcome<T> = Option<std::result::Result<T, Failure>>;

/// Work under way, by key, with what comes of it.
pub(crate) struct Flights<K, T = ()>(Arc<Mutex<HashMap<K, Weak<Work<T>>>>>);

struct Work<T> {
    outcome: watch::Receiver<Outcome<T>>,
    stop: CancellationToken,
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A share in work under way.
pub(crate) struct Ticket<T = ()> {
    work: Arc<Work<T>>,
    /// Whether this one started the work.
    pub(crate) leads: bool,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// Joins the work of this key, or starts it. `start` gets the token that says when nobody wants it any more.
    pub(crate) fn join<F>(&self, key: K, start: impl FnOnce(CancellationToken) -> F) -> Ticket<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = flights.get(&key).and_then(Weak::upgrade)
            && work.outcome.borrow().is_none()
        {
            return Ticket { work, leads: false };
        }
        let (tell, outcome) = watch::channel(None);
        let stop = CancellationToken::new();
        let work = Arc::new(Work { outcome, stop: stop.clone() });
        flights.insert(key.clone(), Arc::downgrade(&work));
        let (task, registry) = (start(stop), Arc::clone(&self.0));
        let task = task.in_current_span();
        tokio::spawn(async move {
            let result = task.await.map_err(|error| Failure { code: error.code(), message: error.chain() });
            // Told before it is forgotten: who comes in between starts anew and finds the work done.
            let _ = tell.send(Some(result));
            let mut flights = registry.lock().unwrap_or_else(PoisonError::into_inner);
            if flights.get(&key).is_some_and(|work| work.upgrade().is_none_or(|work| work.outcome.borrow().is_some())) {
                flights.remove(&key);
            }
        });
        Ticket { work, leads: true }
    }
}

impl<T: Clone> Ticket<T> {
    /// Waits for the work to be done.
    pub(crate) async fn wait(&self) -> Result<T> {
        let mut outcome = self.work.outcome.clone();
        let outcome = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match outcome {
            Ok(Some(Ok(done))) => Ok(done),
            Ok(Some(Err(failure))) => Err(Error::new(failure.code, failure.message)),
            Ok(None) | Err(_) => Err(Error::internal("the task that did the work died")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_ask_one_works_and_the_first_may_leave() {
        let flights = Flights::default();
        let (runs, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let join = || {
            let (runs, go) = (runs.clone(), go.clone());
            flights.join("key", |stop| async move {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::select! {
                    () = go.notified() => Err::<(), _>(Error::not_found("gone")),
                    () = stop.cancelled() => Err(Error::cancelled("nobody waits")),
                }
            })
        };
        let first = join();
        let second = join();
        assert_eq!([first.leads, second.leads], [true, false]);
        drop(first);
        go.notify_one();
        assert!(second.wait().await.unwrap_err().is_not_found());
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(join().leads, "work that is done is not joined");
    }

    #[tokio::test]
    async fn work_stops_when_the_last_leaves() {
        let flights = Flights::default();
        let stopped = Arc::new(Notify::new());
        let told = stopped.clone();
        let ticket = flights.join(1, |stop| async move {
            stop.cancelled().await;
            told.notify_one();
            Ok(())
        });
        drop(ticket);
        stopped.notified().await;
    }
}
