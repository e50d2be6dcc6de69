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
use kevel_contract::trace;
use kevel_model::{Error, Result};
use prometheus::HistogramVec;
use tonic::Status;
use tracing::{Instrument as _, Span};

use crate::{answer::status, counters::OperationCounters, patience};

type Outcome = Result<String, Status>;

/// The stage that an operation is in, and since when.
type Stage = Arc<At>;

struct At {
    kind: &'static str,
    /// The stage, its beginning, and its span.
    now: Mutex<(&'static str, Instant, Span)>,
    seconds: Option<HistogramVec>,
    /// The span of the operation, below that of the call which began it.
    span: Span,
}

impl At {
    /// Begins an operation.
    fn beginning(key: &str, since: Instant, seconds: Option<HistogramVec>) -> Self {
        let kind = kind(key);
        let span = trace::begin(kind);
        span.record("object", key);
        Self { kind, now: Mutex::new(("beginning", since, Span::none())), seconds, span }
    }

    /// Enters a stage and counts how long the one before took.
    fn enter(&self, name: &'static str) {
        self.change(name, trace::child(&self.span, name));
    }

    /// The end of the last stage.
    fn over(&self) {
        self.change("over", Span::none());
    }

    fn change(&self, name: &'static str, span: Span) {
        let now = Instant::now();
        let after = (name, now, span);
        let (before, since, _ended) =
            std::mem::replace(&mut *self.now.lock().unwrap_or_else(PoisonError::into_inner), after);
        if let Some(seconds) = &self.seconds {
            seconds.with_label_values(&[self.kind, before]).observe(now.duration_since(since).as_secs_f64());
        }
    }
}

/// What operations do, by the beginning of their keys.
const KINDS: [(&str, &str); 11] = [
    ("run pod sandbox ", "run_pod_sandbox"),
    ("stop pod sandbox ", "stop_pod_sandbox"),
    ("remove pod sandbox ", "remove_pod_sandbox"),
    ("create container ", "create_container"),
    ("start container ", "start_container"),
    ("stop container ", "stop_container"),
    ("remove container ", "remove_container"),
    ("update container ", "update_container"),
    ("pull image ", "pull_image"),
    ("checkpoint container ", "checkpoint_container"),
    ("checkpoint pod sandbox ", "checkpoint_pod_sandbox"),
];

fn kind(key: &str) -> &'static str {
    KINDS.iter().find(|(start, _)| key.starts_with(start)).map_or("other", |(_, kind)| kind)
}

tokio::task_local! {
    static STAGE: Stage;
}

/// Says what the operation of this task does from now on, for its callers and the verbose status. Outside of an
/// operation it says nothing.
pub(crate) fn stage(name: &'static str) {
    let _ = STAGE.try_with(|stage| stage.enter(name));
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
    /// What it does, in a word.
    pub(crate) kind: &'static str,
    /// How long it has been running.
    pub(crate) took: Duration,
    /// What it does now, and for how long.
    pub(crate) stage: (&'static str, Duration),
}

/// The operations that run. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Operations {
    running: Arc<Mutex<(u64, HashMap<String, Running>)>>,
    counters: Option<OperationCounters>,
}

impl Operations {
    /// Operations whose time, stages and failures are counted.
    pub(crate) fn measured(counters: OperationCounters) -> Self {
        Self { running: Arc::default(), counters: Some(counters) }
    }

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
                    let seconds = self.counters.as_ref().map(|counters| counters.stages.clone());
                    let stage = Arc::new(At::beginning(&key, since, seconds));
                    let outcome = self.start(key.clone(), number, stage.clone(), work());
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
                let Progress { key, took, stage: (stage, since), .. } = found.progress(key);
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
        stage: Stage,
        work: impl Future<Output = Result<String>> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Outcome>> {
        let operations = self.clone();
        // The task removes its entry after it ended; it cannot run before the caller inserted it, who holds the lock.
        let task = tokio::spawn(async move {
            let began = Instant::now();
            let work = STAGE.scope(stage.clone(), work).instrument(stage.span.clone());
            let outcome = std::panic::AssertUnwindSafe(work).catch_unwind().await;
            operations.finish(&key, number);
            stage.over();
            note(&stage.span, &outcome);
            operations.count(stage.kind, began.elapsed(), &outcome);
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

    fn count<E>(&self, kind: &str, took: Duration, outcome: &std::result::Result<Result<String>, E>) {
        let Some(counters) = &self.counters else { return };
        let code = match outcome {
            Ok(Ok(_)) => return counters.seconds.with_label_values(&[kind]).observe(took.as_secs_f64()),
            Ok(Err(error)) => format!("{:?}", error.code()),
            Err(_) => "Panic".to_owned(),
        };
        counters.failures.with_label_values(&[kind, code.as_str()]).inc();
    }

    /// What runs, in order of key.
    pub(crate) fn list(&self) -> Vec<Progress> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = running.1.iter().map(|(key, one)| one.progress(key.clone())).collect();
        list.sort_by(|one, other| one.key.cmp(&other.key));
        list
    }
}

/// How an operation ended, for its trace.
fn note<E>(span: &Span, outcome: &std::result::Result<Result<String>, E>) {
    match outcome {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => trace::failed(span, error),
        Err(_) => trace::failed(span, &Error::internal("the operation panicked")),
    }
}

impl Running {
    fn progress(&self, key: String) -> Progress {
        let (stage, since, _) = *self.stage.now.lock().unwrap_or_else(PoisonError::into_inner);
        Progress { key, kind: self.stage.kind, took: self.since.elapsed(), stage: (stage, since.elapsed()) }
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
    async fn operations_and_their_stages_are_counted() {
        let registry = kevel_contract::metric::MetricRegistry::default();
        let counters = crate::counters::Counters::new(&registry).unwrap().operations;
        let operations = Operations::measured(counters.clone());
        let work = || async {
            stage("knitting");
            Ok(String::new())
        };
        operations.run("run pod sandbox p".into(), vec![], work).await.unwrap();
        let of = |stage| counters.stages.with_label_values(&["run_pod_sandbox", stage]).get_sample_count();
        assert_eq!((of("beginning"), of("knitting"), of("over")), (1, 1, 0));
        assert_eq!(counters.seconds.with_label_values(&["run_pod_sandbox"]).get_sample_count(), 1);
        let fails = || async { Err(Error::not_found("x")) };
        operations.run("start container c".into(), vec![], fails).await.unwrap_err();
        assert_eq!(counters.failures.with_label_values(&["start_container", "NotFound"]).get(), 1);
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
