//! The database: durable tables of small records in one file, one writer that commits for many, and readers that
//! never wait.
//!
//! Built on redb, which only this crate opens. What is stored is the business of whoever opens a [`Database`]
//! (`metadata`, snapshotters); indexes for fast reads are theirs too.
//!
//! - **Writes** are closures over a [`Batch`]. They run one after the other on a thread of their own; those that are
//!   waiting when a commit begins share it, so many callers pay for one sync. A closure that fails leaves nothing
//!   behind and does not disturb its neighbours. The answer comes when the commit is durable.
//! - **Reads** see the last commit, whole, and hold up nobody ([`Database::read`]).
//! - **Records** are protobuf messages: compact (byte strings stay byte strings), and a field that is added later is
//!   skipped by an older program and defaults in a newer one, which a positional encoding would not survive.
//! - **After a crash** the file opens as of some commit that includes every acknowledged one. A commit is one sync: its
//!   checksums tell whether it is whole. redb's quick repair would open faster after a crash (for 35 MB, far more than a
//!   node has, 70 ms instead of 180 ms in a debug build) but syncs twice in every commit, which doubles the time of each
//!   change (10 ms instead of 5 ms on a slow disk); so it is off.
//! - **After an I/O error** every further write fails with "unavailable" until the program starts again; what was
//!   acknowledged is safe, and reads go on.

mod batch;
#[cfg(feature = "crash")]
pub mod crash;
mod error;
mod schema;
mod snapshot;
mod table;
mod unsynced;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use kevel_model::{Error, Result};
pub use redb::StorageBackend;
use tokio::sync::{mpsc, oneshot};

pub use batch::Batch;
pub use error::DatabaseError;
pub use schema::Schema;
pub use snapshot::Snapshot;
pub use table::{Record, Table};

use writer::Job;

/// Bytes of pages kept in memory. Reads of a running daemon come from indexes, so that little is needed.
const CACHE: usize = 4 << 20;
/// Writes that may wait for the writer before their callers have to.
const QUEUE: usize = 1024;

/// An open database. Cheap to clone; the file closes when the last clone goes.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    file: Option<Arc<redb::Database>>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Database {
    /// Opens the file, which is made if it is not there, and brings its tables to `schema`. Does blocking I/O.
    ///
    /// Errors: "unavailable" when another process has it open, "failed precondition" when a newer program wrote it,
    /// "data loss" when it is damaged.
    pub fn open(path: impl AsRef<Path>, schema: &Schema) -> Result<Self> {
        let path = path.as_ref();
        Self::opened(&path.display().to_string(), schema, |builder| builder.create(path))
    }

    /// The same, but no commit waits for the disk: what is acknowledged survives the end of the program, and a power loss
    /// may take the whole database.
    pub fn open_unsynced(path: impl AsRef<Path>, schema: &Schema) -> Result<Self> {
        let path = path.as_ref();
        Self::opened(&path.display().to_string(), schema, |builder| {
            builder.create_with_backend(unsynced::Unsynced::open(path)?)
        })
    }

    /// Opens a database on storage of the caller's, as crash tests do. `name` is what errors call it.
    pub fn on(name: &str, backend: impl StorageBackend, schema: &Schema) -> Result<Self> {
        Self::opened(name, schema, |builder| builder.create_with_backend(backend))
    }

    fn opened(
        name: &str,
        schema: &Schema,
        open: impl FnOnce(&mut redb::Builder) -> Result<redb::Database, redb::DatabaseError>,
    ) -> Result<Self> {
        let mut builder = redb::Builder::new();
        builder.set_cache_size(CACHE);
        let file = open(&mut builder).map_err(|source| DatabaseError::open(name, source))?;
        schema.apply(name, &file)?;
        let file = Arc::new(file);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let for_writer = Arc::clone(&file);
        let writer = thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || writer::run(&for_writer, queue))
            .map_err(|error| Error::io("starting the database writer", error))?;
        Ok(Self(Arc::new(Inner { file: Some(file), jobs: Some(jobs), writer: Mutex::new(Some(writer)) })))
    }

    /// Runs `work` on the writer and answers when what it wrote is durable. When it fails, nothing of it is stored.
    ///
    /// `work` sees everything that was written before it. It must not block on anything: all other writers wait. Once
    /// the returned future was polled the work may be done even if the future is dropped.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::unavailable("the database is closed");
        let jobs = self.0.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job::new(work, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Reads the last commit. Does blocking I/O where pages are not in memory.
    pub fn read<T>(&self, read: impl FnOnce(&Snapshot) -> Result<T>) -> Result<T> {
        let file = self.0.file.as_ref().ok_or_else(|| Error::unavailable("the database is closed"))?;
        read(&Snapshot::new(file)?)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

impl Drop for Inner {
    /// Lets the writer finish what it accepted, then closes the file, so that it can be opened again at once.
    fn drop(&mut self) {
        self.jobs = None;
        self.file = None;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may go with a piece of work on the writer itself, which can't wait for its own end.
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != thread::current().id()) {
            let _ = writer.join(); // it catches panics of the work it runs
        }
    }
}

#[cfg(test)]
mod tests;
