//! The log of one container: a file that both streams share and that kubelet rotates.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    error::{Error, Result},
    file,
    line::Cut,
    spool::Spool,
};

/// A container's log. Clones are the same log.
#[derive(Clone, Debug)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: Option<PathBuf>,
    /// Held while one batch is written or the file is changed, on a thread that may block.
    file: Mutex<Option<File>>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    lines: AtomicU64,
    bytes: AtomicU64,
    splits: AtomicU64,
    dropped_bytes: AtomicU64,
    failures: AtomicU64,
}

/// What became of a container's output so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lines that were cut, written or not.
    pub lines: u64,
    /// Bytes of the log that were written.
    pub bytes: u64,
    /// Lines that exist because one was longer than the limit.
    pub splits: u64,
    /// Bytes of the log that the disk did not take.
    pub dropped_bytes: u64,
    /// Writes that failed.
    pub failures: u64,
}

impl Log {
    /// Opens the log at `path`; without one, output is read and thrown away.
    pub async fn open(path: Option<&Path>) -> Result<Self> {
        let path = path.map(Path::to_path_buf);
        let file = match path.clone() {
            Some(path) => Some(opened(path, "opening").await?),
            None => None,
        };
        Ok(Self(Arc::new(Inner { path, file: Mutex::new(file), counters: Counters::default() })))
    }

    /// Throws everything away.
    pub fn discard() -> Self {
        Self(Arc::new(Inner { path: None, file: Mutex::new(None), counters: Counters::default() }))
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Goes on in a new file at the same path, after kubelet renamed the old one. Lines before go to the old file,
    /// lines after to the new one, none to neither. If the new file cannot be opened, the old one stays.
    pub async fn reopen(&self) -> Result<()> {
        let Some(path) = self.0.path.clone() else { return Ok(()) };
        let new = opened(path, "reopening").await?;
        let inner = Arc::clone(&self.0);
        // The lock may be held by a write that waits for the disk.
        let old = tokio::task::spawn_blocking(move || inner.lock().replace(new)).await;
        drop(old);
        Ok(())
    }

    /// Counts since the log was opened.
    pub fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        Stats {
            lines: get(&counters.lines),
            bytes: get(&counters.bytes),
            splits: get(&counters.splits),
            dropped_bytes: get(&counters.dropped_bytes),
            failures: get(&counters.failures),
        }
    }

    /// Whether lines go anywhere.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.path.is_some()
    }

    /// Appends whole lines and empties the buffer. A disk that refuses costs the lines, not the container. Blocks.
    pub(crate) fn append(&self, lines: &mut Vec<u8>, cut: Cut, batch: Option<&mut Batch<'_>>) {
        if !lines.is_empty() && self.is_kept() {
            self.0.append(lines, cut, batch);
        }
        lines.clear();
    }

    /// The file with that number: the log, or one that kubelet has renamed. Blocks.
    pub(crate) fn find(&self, inode: u64) -> io::Result<Option<File>> {
        if let Some(file) = self.0.lock().as_ref()
            && file.metadata()?.ino() == inode
        {
            return file.try_clone().map(Some);
        }
        let Some(dir) = self.0.path.as_deref().and_then(Path::parent) else { return Ok(None) };
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            // Others may go meanwhile.
            if entry.metadata().is_ok_and(|now| now.ino() == inode) {
                return file::append(&entry.path()).map(Some);
            }
        }
        Ok(None)
    }
}

/// Lines of one stream, for whom a killed daemon's successor must be able to tell whether they were written.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) spool: &'a mut Spool,
    /// How much of what was read is not among them.
    pub(crate) pending: usize,
    /// Why nobody will be able to.
    pub(crate) failed: Option<io::Error>,
}

impl Batch<'_> {
    fn begin(&mut self, file: &File, bytes: usize) {
        self.failed = self.spool.begin(file, bytes, self.pending).err();
    }

    fn done(&mut self) {
        self.failed = self.failed.take().or_else(|| self.spool.done(self.pending).err());
    }
}

impl Inner {
    fn append(&self, lines: &[u8], cut: Cut, mut batch: Option<&mut Batch<'_>>) {
        let add = |counter: &AtomicU64, count: u64| counter.fetch_add(count, Ordering::Relaxed);
        let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        add(&self.counters.lines, cut.lines);
        add(&self.counters.splits, cut.splits);
        let mut file = self.lock();
        let Some(file) = file.as_mut() else { return };
        if let Some(batch) = &mut batch {
            batch.begin(file, lines.len());
        }
        match file::write_lines(file, lines) {
            Ok(()) => {
                add(&self.counters.bytes, size(lines.len()));
            }
            Err((kept, error)) => {
                add(&self.counters.bytes, size(kept));
                add(&self.counters.dropped_bytes, size(lines.len() - kept));
                // A full disk fails every write: say it when it starts, then ever more rarely.
                let failures = add(&self.counters.failures, 1) + 1;
                if failures.is_power_of_two() {
                    tracing::warn!(path = ?self.path, %error, failures, "container log lines dropped");
                }
            }
        }
        if let Some(batch) = &mut batch {
            batch.done();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<File>> {
        // A file is usable whatever happened to the thread that wrote to it last.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn opened(path: PathBuf, doing: &'static str) -> Result<File> {
    let at = path.clone();
    let result = tokio::task::spawn_blocking(move || file::append(&at)).await;
    let result = result.unwrap_or_else(|error| Err(io::Error::other(error)));
    result.map_err(|source| Error::Log { doing, path, source })
}
