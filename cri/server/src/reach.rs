//! Looks at paths of the node that may never answer: a mount of a server that is gone stops whoever touches it, in a way
//! that no signal ends.
//!
//! A look runs on a thread of its own and has a deadline. A thread that is stuck is left alone, and until it comes back
//! the path it is stuck at is not touched again: one dead mount costs one thread and the containers that want it, and
//! nobody else anything. Threads of the async runtime's pool are not used, because a stuck one would hold up the end of
//! the daemon.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kevel_model::{Error, Result};
use tokio::sync::oneshot;

/// So many paths may be stuck before nothing is looked at any more; each holds a thread.
const MOST: usize = 64;

thread_local! {
    static LOOK: RefCell<Option<Arc<Look>>> = const { RefCell::new(None) };
}

/// Who looks at paths. Clones share what is stuck.
#[derive(Clone, Default)]
pub(crate) struct Reach {
    stuck: Arc<Mutex<BTreeMap<String, Instant>>>,
}

/// One look: where it is.
struct Look {
    reach: Reach,
    at: Mutex<At>,
}

#[derive(Default)]
struct At {
    field: String,
    path: String,
    /// It ended.
    over: bool,
    /// Nobody waits for it any more.
    late: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says which path the look of this thread touches next, and which field of the request it is from. The error is that
/// the path is known not to answer.
///
/// # Errors
/// "unavailable" when somebody is stuck there.
pub(crate) fn at(field: &str, path: &str) -> Result<()> {
    LOOK.with_borrow(|look| {
        let Some(look) = look else { return Ok(()) };
        look.reach.check(field, path)?;
        let mut at = lock(&look.at);
        if at.late {
            return Err(Error::deadline_exceeded("nobody waits for this look at paths any more"));
        }
        at.field.clear();
        at.field.push_str(field);
        at.path.clear();
        at.path.push_str(path);
        Ok(())
    })
}

impl Reach {
    /// Runs `work`, which blocks and tells by [`at`] where it is. After `limit` nobody waits for it any more.
    ///
    /// # Errors
    /// Those of `work`, "deadline exceeded" naming the path, "unavailable" when too many looks are stuck.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stuck = lock(&self.stuck).len();
        if stuck >= MOST {
            return Err(Error::unavailable(format!("{stuck} paths of this node do not answer; no other is looked at")));
        }
        let look = Arc::new(Look { reach: self.clone(), at: Mutex::default() });
        let (sender, receiver) = oneshot::channel();
        let own = look.clone();
        let thread = std::thread::Builder::new().name("host paths".to_owned()).spawn(move || {
            let _over = Over(own.clone());
            LOOK.set(Some(own));
            let _ = sender.send(work()); // nobody waits any more when it was late
        });
        thread.map_err(|error| Error::io("starting a thread for paths of the node", error))?;
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(Error::internal("looking at paths of the node panicked")),
            Err(_) => Err(look.late(limit)),
        }
    }

    fn check(&self, field: &str, path: &str) -> Result<()> {
        let Some(since) = lock(&self.stuck).get(path).copied() else { return Ok(()) };
        let seconds = since.elapsed().as_secs();
        Err(Error::unavailable(format!(
            "{field}: {path:?} has not answered for {seconds} s; it is not touched again before it does"
        )))
    }

    /// Paths that do not answer and for how long, for the verbose status.
    pub(crate) fn stuck(&self) -> Vec<(String, Duration)> {
        lock(&self.stuck).iter().map(|(path, since)| (path.clone(), since.elapsed())).collect()
    }
}

impl Look {
    fn late(&self, limit: Duration) -> Error {
        let mut at = lock(&self.at);
        at.late = true;
        if at.path.is_empty() {
            return Error::deadline_exceeded(format!("looking at paths of the node: not begun within {limit:?}"));
        }
        if !at.over {
            tracing::warn!(path = at.path, field = at.field, "a path of the node does not answer");
            lock(&self.reach.stuck).entry(at.path.clone()).or_insert_with(Instant::now);
        }
        Error::deadline_exceeded(format!("{}: {:?} did not answer within {limit:?}", at.field, at.path))
    }
}

/// The end of a look, panics included: its path answers again.
struct Over(Arc<Look>);

impl Drop for Over {
    fn drop(&mut self) {
        let mut at = lock(&self.0.at);
        at.over = true;
        if lock(&self.0.reach.stuck).remove(&at.path).is_some() {
            tracing::info!(path = at.path, "a path of the node answers again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// For looks that nothing stops.
    const ENOUGH: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_stuck_path_costs_one_thread_and_nobody_else_anything() {
        let reach = Reach::default();
        let (thaw, frozen) = mpsc::channel::<()>();
        let stuck = reach.look(Duration::from_secs(1), move || {
            at("mounts[1].host_path", "/dead")?;
            let _ = frozen.recv();
            Ok(())
        });
        let error = stuck.await.unwrap_err();
        assert_eq!(error.code(), kevel_model::Code::DeadlineExceeded);
        assert_eq!(error.to_string(), "mounts[1].host_path: \"/dead\" did not answer within 1s");
        assert_eq!(reach.stuck()[0].0, "/dead");

        let again = reach.look(ENOUGH, || at("mounts[0].host_path", "/dead")).await.unwrap_err();
        assert_eq!(again.code(), kevel_model::Code::Unavailable);
        assert!(again.to_string().starts_with("mounts[0].host_path: \"/dead\" has not answered for"), "{again}");
        reach.look(ENOUGH, || at("mounts[0].host_path", "/well")).await.unwrap();

        thaw.send(()).unwrap();
        while !reach.stuck().is_empty() {
            tokio::task::yield_now().await;
        }
        reach.look(ENOUGH, || at("mounts[0].host_path", "/dead")).await.unwrap();
    }

    #[tokio::test]
    async fn there_is_an_end_to_stuck_threads_and_a_panic_is_an_error() {
        let reach = Reach::default();
        let panicked: Result<()> = reach.look(ENOUGH, || panic!("broken")).await;
        assert_eq!(panicked.unwrap_err().code(), kevel_model::Code::Internal);
        let mut held = Vec::new();
        let looks = (0..MOST).map(|number| {
            let (thaw, frozen) = mpsc::channel::<()>();
            held.push(thaw);
            let path = format!("/dead/{number}");
            reach.look(Duration::from_secs(5), move || {
                at("f", &path)?;
                let _ = frozen.recv();
                Ok(())
            })
        });
        let looks: Vec<_> = looks.collect();
        for done in futures::future::join_all(looks).await {
            done.unwrap_err();
        }
        let more = reach.look(ENOUGH, || Ok(())).await.unwrap_err();
        assert_eq!(more.to_string(), "64 paths of this node do not answer; no other is looked at");
    }
}
