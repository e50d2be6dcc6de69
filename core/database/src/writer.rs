//! The writer: one thread that runs pieces of work one by one and commits for all that are waiting.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kevel_model::{Code, Error, Result};
use tokio::sync::{mpsc, oneshot};

use crate::{Batch, DatabaseError, batch::Hook};

/// The most pieces of work that share a commit, so that the first does not wait for ever.
const GROUP: usize = 512;

/// Called with why the commit failed, or nothing when it is durable.
type Acknowledge = Box<dyn FnOnce(Option<(Code, String)>) + Send>;

/// Answers whether its changes are to be kept, and whom to tell of the commit.
type Work = Box<dyn FnOnce(&mut Batch<'_>) -> (bool, Acknowledge) + Send>;

/// A piece of work on its way to the writer.
pub(crate) struct Job(Work);

impl Job {
    pub(crate) fn new<T: Send + 'static>(
        work: impl FnOnce(&mut Batch<'_>) -> Result<T> + Send + 'static,
        answer: oneshot::Sender<Result<T>>,
    ) -> Self {
        Self(Box::new(move |batch| {
            let result = catch_unwind(AssertUnwindSafe(|| work(batch)))
                .unwrap_or_else(|_| Err(Error::internal("a database write panicked")));
            let keep = result.is_ok();
            let acknowledge: Acknowledge = Box::new(move |failure| {
                let result = match failure {
                    Some((code, text)) if keep => Err(Error::new(code, text)),
                    _ => result,
                };
                let _ = answer.send(result); // the caller may have gone; the work is done all the same
            });
            (keep, acknowledge)
        }))
    }
}

/// Runs until every sender of `queue` is gone and all that they sent is done.
pub(crate) fn run(file: &redb::Database, mut queue: mpsc::Receiver<Job>) {
    let mut group = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        group.push(first);
        while let Some(next) = (group.len() < GROUP).then(|| queue.try_recv().ok()).flatten() {
            group.push(next);
        }
        commit(file, group.drain(..));
    }
}

/// Runs a group in one transaction and answers each of it.
fn commit(file: &redb::Database, group: impl Iterator<Item = Job>) {
    let mut acknowledges = Vec::new();
    let mut hooks: Vec<Hook> = Vec::new();
    let result = transact(file, group, &mut acknowledges, &mut hooks);
    if let Err(error) = &result {
        tracing::error!(error = %error.chain(), "database commit failed");
    }
    let failure = result.err().map(|error| (error.code(), error.chain()));
    for hook in hooks {
        hook(failure.is_none());
    }
    for acknowledge in acknowledges {
        acknowledge(failure.clone());
    }
}

fn transact(
    file: &redb::Database,
    group: impl Iterator<Item = Job>,
    acknowledges: &mut Vec<Acknowledge>,
    hooks: &mut Vec<Hook>,
) -> Result<()> {
    let transaction = file.begin_write().map_err(DatabaseError::access("starting a write"))?;
    let (mut changed, mut broken) = (false, None);
    // Every piece runs even after a failure to store, so that each caller is answered with why.
    for Job(work) in group {
        let mut batch = Batch::new(&transaction);
        let (keep, acknowledge) = work(&mut batch);
        acknowledges.push(acknowledge);
        if !keep {
            continue;
        }
        let (applied, more) = batch.apply();
        hooks.extend(more);
        match applied {
            Ok(any) => changed |= any,
            Err(error) => broken = broken.or(Some(error)),
        }
    }
    if let Some(error) = broken {
        return Err(error.into());
    }
    if changed {
        transaction.commit().map_err(DatabaseError::access("committing to the database"))?;
    } else {
        transaction.abort().map_err(DatabaseError::access("ending a write without changes"))?;
    }
    Ok(())
}
