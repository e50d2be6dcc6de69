//! Ending and removing the pause container.

use std::time::Duration;

use kevel_contract::{
    Scope,
    task::{Kill, Tasks},
};
use kevel_model::{Code, Error, Result};

use super::PauseController;

/// The least that the kernel gets to end a killed process.
const LEAST: Duration = Duration::from_secs(10);
/// How often a delete is tried that the runtime refuses, and how long after the first time; after each later one twice as long.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Removes the task of a process that has ended; one that is gone is no error. A runtime that looks for itself, as gVisor does,
/// may see that end later than its shim told it.
pub(crate) async fn delete_ended(tasks: &Tasks, scope: &Scope, id: &str) -> Result<()> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match gone(tasks.delete(scope, id).await.map(drop)) {
            Err(error) if matches!(error.code(), Code::Unknown | Code::Internal | Code::FailedPrecondition) => {
                tracing::debug!(task = id, error = error.chain(), "deleting a task is tried again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            other => return other,
        }
    }
    gone(tasks.delete(scope, id).await.map(drop))
}

impl PauseController {
    /// Kills the pause process, which has nothing to finish, and removes its task.
    pub(super) async fn end(&self, scope: &Scope, id: &str, timeout: Duration) -> Result<()> {
        let kill = Kill { container_id: id.to_owned(), signal: 9, all: true, ..Kill::default() };
        match self.tasks.kill(scope, kill).await {
            Err(error) if error.is_not_found() => return gone(self.tasks.delete(scope, id).await.map(drop)),
            // A process that has ended can't be killed, nor, with some runtimes, one that was never started.
            Err(error) => {
                tracing::debug!(sandbox = id, error = error.chain(), "killing the pause process");
                if gone(self.tasks.delete(scope, id).await.map(drop)).is_ok() {
                    return Ok(());
                }
            }
            Ok(()) => {}
        }
        let timeout = timeout.max(LEAST);
        let waited = tokio::time::timeout(timeout, self.tasks.wait(scope, id, "")).await;
        let late = |_| Err(Error::deadline_exceeded(format!("sandbox {id} did not end within {timeout:?} of SIGKILL")));
        gone(waited.unwrap_or_else(late).map(drop))?;
        delete_ended(&self.tasks, scope, id).await
    }

    /// Removes the task, then snapshot and record, which go in one commit. While the record is there, somebody can try
    /// again; should it alone go, the garbage collector takes the snapshot.
    pub(super) async fn erase(&self, scope: &Scope, id: &str) -> Result<()> {
        self.take_created(id);
        let container = match self.containers.get(scope, id).await {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        self.end(scope, id, LEAST).await?;
        let snapshot = async {
            match self.snapshotters.get(&container.snapshotter) {
                Some(snapshotter) => snapshotter.remove(scope, &container.snapshot_key).await,
                None => Ok(()),
            }
        };
        let (snapshot, record) = tokio::join!(snapshot, self.containers.delete(scope, id));
        gone(snapshot)?;
        gone(record)
    }
}
