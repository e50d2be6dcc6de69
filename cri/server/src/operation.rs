//! Operations that outlive their callers. Each is a task of its own under a key; whoever asks for the same key while it
//! runs waits for the same result.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use kevel_model::Result;
use tonic::Status;

use crate::answer::status;

type Outcome = Result<String, Status>;

struct Running {
    number: u64,
    print: Vec<u8>,
    since: Instant,
    outcome: Shared<BoxFuture<'static, Outcome>>,
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
        let outcome = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match running.1.get(&key) {
                Some(found) if found.print == print => found.outcome.clone(),
                Some(_) => {
                    return Err(Status::aborted(format!("{key}: another operation with other parameters is running")));
                }
                None => {
                    running.0 += 1;
                    let number = running.0;
                    let outcome = self.start(key.clone(), number, work());
                    running.1.insert(key, Running { number, print, since: Instant::now(), outcome: outcome.clone() });
                    outcome
                }
            }
        };
        outcome.await
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

    /// What runs, and for how long, in order of key.
    pub(crate) fn list(&self) -> Vec<(String, std::time::Duration)> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = running.1.iter().map(|(key, one)| (key.clone(), one.since.elapsed())).collect();
        list.sort();
        list
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
    async fn a_panic_frees_the_key() {
        let operations = Operations::default();
        let work = || async { panic!("broken") };
        let error = operations.run("key".into(), vec![], work).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Internal);
        assert!(operations.list().is_empty());
    }
}
