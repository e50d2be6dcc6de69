//! Operations that outlive their callers. Each is a task of its own under a key; whoever asks for the same key while it
//! runs waits for the same result. An operation says which stage it is in ([`stage`]), and a caller whose patience ends
//! before it does is told that.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use kevel_model::Result;
use tonic::Status;

use crate::{answer::status, patience};

type Outcome = Result<String, Status>;

/// The stage that an operation is in, and since when.
type Stage = Arc<Mutex<(&'static str, Instant)>>;

tokio::task_local! {
    static STAGE: Stage;
}

/// Says what the operation of this task does from now on, for its callers and the verbose status. Outside of an
/// operation it says nothing.
pub(crate) fn stage(name: &'static str) {
    let _ = STAGE.try_with(|stage| *stage.lock().unwrap_or_else(PoisonError::into_inner) = (name, Instant::now()));
}

#[derive(Clone)]
struct Running {
    number: u64,
    print: Vec<u8>,
    since: Instant,
    stage: Stage,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

/// An operation that runs.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// What it is.
    pub(crate) key: String,
    /// How long it has been running.
    pub(crate) took: Duration,
    /// What it does now, and for how long.
    pub(crate) stage: (&'static str, Duration),
}

/// The operations that run. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Operations {
    running: Arc<Mutex<(u64, HashMap<String, Running>)>>,
}

impl Operations {
    /// Starts `work` under `key`, or joins the operation that runs there. `print` is what the request says: joining
    /// one that says something else is refused. The work goes on when the caller hangs up.
    pub(crate) async fn run<F>(&self, key: String, print: Vec<u8>, work: impl FnOnce() -> F) -> Outcome
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let found = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match running.1.get(&key) {
                Some(found) if found.print == print => found.clone(),
                Some(_) => {
                    return Err(Status::aborted(format!("{key}: another operation with other parameters is running")));
                }
                None => {
                    running.0 += 1;
                    let number = running.0;
                    let since = Instant::now();
                    let stage: Stage = Arc::new(Mutex::new(("beginning", since)));
                    let outcome = self.start(key.clone(), number, STAGE.scope(stage.clone(), work()));
                    let new = Running { number, print, since, stage, outcome };
                    running.1.insert(key.clone(), new.clone());
                    new
                }
            }
        };
        let Some(deadline) = patience::deadline() else { return found.outcome.await };
        match tokio::time::timeout_at(deadline, found.outcome.clone()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let Progress { key, took, stage: (stage, since) } = found.progress(key);
                Err(Status::deadline_exceeded(format!(
                    "{key}: still {stage}, for {since:.1?} of {took:.1?} in all; it goes on, and asking again joins it"
                )))
            }
        }
    }

    fn start(
        &self,
        key: String,
        number: u64,
        work: impl Future<Output = Result<String>> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Outcome>> {
        let operations = self.clone();
        // The task removes its entry after it ended; it cannot run before the caller inserted it, who holds the lock.
        let task = tokio::spawn(async move {
            let outcome = std::panic::AssertUnwindSafe(work).catch_unwind().await;
            operations.finish(&key, number);
            match outcome {
                Ok(outcome) => outcome.map_err(|error| status(&error)),
                Err(_) => Err(Status::internal(format!("{key}: the operation panicked"))),
            }
        });
        async move { task.await.unwrap_or_else(|_| Err(Status::unavailable("the daemon is stopping"))) }
            .boxed()
            .shared()
    }

    fn finish(&self, key: &str, number: u64) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.1.get(key).is_some_and(|found| found.number == number) {
            running.1.remove(key);
        }
    }

    /// What runs, in order of key.
    pub(crate) fn list(&self) -> Vec<Progress> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = running.1.iter().map(|(key, one)| one.progress(key.clone())).collect();
        list.sort_by(|one, other| one.key.cmp(&other.key));
        list
    }
}

impl Running {
    fn progress(&self, key: String) -> Progress {
        let (stage, since) = *self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        Progress { key, took: self.since.elapsed(), stage: (stage, since.elapsed()) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_retry_joins_and_a_hang_up_cancels_nothing() {
        let operations = Operations::default();
        let (go, wait) = oneshot::channel::<()>();
        let first = {
            let operations = operations.clone();
            tokio::spawn(async move {
                let work = || async move {
                    let _ = wait.await;
                    Ok("made".to_owned())
                };
                operations.run("key".into(), vec![1], work).await
            })
        };
        while operations.list().is_empty() {
            tokio::task::yield_now().await;
        }
        first.abort();
        let refused = operations.run("key".into(), vec![2], || async { Ok(String::new()) }).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::Aborted);
        let second = operations.run("key".into(), vec![1], || async { Ok("made twice".to_owned()) });
        let (second, _) = tokio::join!(second, async { go.send(()).unwrap() });
        assert_eq!(second.unwrap(), "made");
        assert!(operations.list().is_empty());
    }

    #[tokio::test]
    async fn who_can_wait_no_longer_is_told_the_stage() {
        let operations = Operations::default();
        let (go, wait) = oneshot::channel::<()>();
        let work = || async move {
            stage("knitting");
            let _ = wait.await;
            Ok("a sock".to_owned())
        };
        let soon = Some(tokio::time::Instant::now() + Duration::from_millis(20));
        let late = patience::within(soon, operations.run("make".into(), vec![], work)).await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        assert!(late.message().starts_with("make: still knitting, for "), "{}", late.message());
        assert_eq!(operations.list()[0].stage.0, "knitting");
        let again = operations.run("make".into(), vec![], || async { Ok(String::new()) });
        let (again, _) = tokio::join!(again, async { go.send(()).unwrap() });
        assert_eq!(again.unwrap(), "a sock");
    }

    #[tokio::test]
    async fn a_panic_frees_the_key() {
        let operations = Operations::default();
        let work = || async { panic!("broken") };
        let error = operations.run("key".into(), vec![], work).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Internal);
        assert!(operations.list().is_empty());
    }
}
