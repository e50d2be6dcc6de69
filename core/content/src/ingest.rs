//! An open ingest: data is gathered in memory, hashed and written in one go by a thread that may block, while the
//! caller gathers the next.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::SystemTime,
};

use async_trait::async_trait;
use bytes::Bytes;
use kevel_contract::content::{Begin, Commit, Ingest, Status};
use kevel_model::{Digest, Hasher, Result};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    error::{self, Error},
    layout::{self, Layout},
    lock::Held,
};

/// How much is gathered before it is written, in bytes; at most twice as much is in memory per ingest, plus the
/// caller's last piece.
const GATHER: usize = 1 << 20;

/// The writer that callers hold.
pub(crate) struct Writer {
    status: Status,
    pending: Vec<Bytes>,
    pending_size: usize,
    stage: Stage,
    layout: Arc<Layout>,
}

/// The part of a writer that works on the file. It has the lock, so that a reference is free only when nobody can
/// write to its file any more.
struct Sink {
    file: File,
    hasher: Hasher,
    /// Bytes in the file and in the hasher.
    offset: u64,
    reference: String,
    held: Held,
}

type Done = (Sink, error::Result<()>);

enum Stage {
    Idle(Box<Sink>),
    Busy(JoinHandle<Done>, (crate::lock::Locks, String)),
    /// Committed, or lost to a panic.
    Closed,
}

impl Writer {
    /// Opens the ingest, resumed where there is one. Blocks; hashes what is there.
    pub(crate) fn open(layout: Arc<Layout>, held: Held, begin: Begin) -> error::Result<Self> {
        if let Some(expected) = &begin.expected
            && layout.exists(expected)?
        {
            return Err(Error::Exists(expected.clone()));
        }
        let found = layout.status(&begin.reference).ok().filter(|found| same_total(found.total, begin.total));
        let mut status = match found {
            Some(found) => found,
            None => layout.begin(&begin.reference, begin.total)?,
        };
        let doing = |error| Error::io(format!("opening ingest {:?}", begin.reference), error);
        let path = layout.ingest(&begin.reference).join(layout::DATA);
        let file = File::options().read(true).write(true).open(path).map_err(doing)?;
        let hasher = begin.expected.as_ref().map_or_else(Hasher::sha256, Digest::hasher);
        let mut sink = Sink { file, hasher, offset: 0, reference: begin.reference.clone(), held };
        sink.rehash(status.offset).map_err(doing)?;
        status.offset = sink.offset;
        status.expected = begin.expected;
        Ok(Self { status, pending: vec![], pending_size: 0, stage: Stage::Idle(Box::new(sink)), layout })
    }

    /// The sink, once the work in flight is done; its failure is this call's failure.
    async fn sink(&mut self) -> error::Result<&mut Sink> {
        if let Stage::Busy(work, _) = &mut self.stage {
            // Cancelled here, the work stays in its place and the next call waits for it.
            let done = work.await;
            let Ok((sink, result)) = done else {
                self.stage = Stage::Closed;
                return Err(Error::Internal("writing to the content store panicked"));
            };
            self.status.offset = sink.offset + if result.is_ok() { self.pending_size as u64 } else { 0 };
            self.stage = Stage::Idle(Box::new(sink));
            if result.is_err() {
                self.pending.clear(); // it would leave a hole
                self.pending_size = 0;
            }
            result?;
        }
        match &mut self.stage {
            Stage::Idle(sink) => Ok(sink),
            _ => Err(Error::Closed(self.status.reference.clone())),
        }
    }

    /// Starts work on the sink, after what is in flight.
    async fn start(&mut self, work: impl FnOnce(&mut Sink) -> error::Result<()> + Send + 'static) -> error::Result<()> {
        self.sink().await?;
        if let Stage::Idle(mut sink) = std::mem::replace(&mut self.stage, Stage::Closed) {
            let handle = sink.held.handle();
            let task = tokio::task::spawn_blocking(move || {
                let result = work(&mut sink);
                (*sink, result)
            });
            self.stage = Stage::Busy(task, handle);
        }
        Ok(())
    }

    /// Starts writing what was gathered.
    async fn push(&mut self) -> error::Result<()> {
        self.sink().await?; // first, so that a cancelled call has not taken the data out
        let pieces = std::mem::take(&mut self.pending);
        self.pending_size = 0;
        self.start(move |sink| sink.append(&pieces)).await
    }

    async fn flush(&mut self) -> error::Result<()> {
        if self.pending_size > 0 {
            self.push().await?;
        }
        self.sink().await.map(|_| ())
    }

    async fn finish(&mut self, commit: Commit) -> error::Result<Digest> {
        self.flush().await?;
        let layout = Arc::clone(&self.layout);
        let want = commit.expected.or_else(|| self.status.expected.clone());
        let (size, total) = (commit.size, self.status.total);
        let (answer, done) = tokio::sync::oneshot::channel();
        self.start(move |sink| {
            let size = if size > 0 { size } else { total };
            let digest = sink.verify(size, want.as_ref())?;
            sink.publish(&layout, &digest)?;
            let _ = answer.send(digest); // nobody listens when the call was cancelled; the blob is there all the same
            Ok(())
        })
        .await?;
        let result = self.sink().await.map(|_| ());
        if let Err(error) = result {
            if matches!(error, Error::Exists(_)) {
                self.stage = Stage::Closed;
            }
            return Err(error);
        }
        self.stage = Stage::Closed; // gives the lock back
        done.await.map_err(|_| Error::Internal("commit ended without an answer"))
    }
}

/// Whether an ingest of `have` bytes in all may be resumed by a writer that says `want`; 0 is unknown.
fn same_total(have: u64, want: u64) -> bool {
    have == 0 || want == 0 || have == want
}

impl Sink {
    fn failed(&self, error: impl Into<io::Error>) -> Error {
        Error::io(format!("writing ingest {:?}", self.reference), error)
    }

    fn append(&mut self, pieces: &[Bytes]) -> error::Result<()> {
        for piece in pieces {
            // At the offset of the last whole piece, so that a failed write is overwritten by the next.
            self.file.write_all_at(piece, self.offset).map_err(|error| self.failed(error))?;
            self.hasher.update(piece);
            self.offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Hashes the first `size` bytes of the file anew, or all where it has fewer.
    fn rehash(&mut self, size: u64) -> io::Result<()> {
        self.rehash_with(size, fresh(&self.hasher))
    }

    fn rehash_with(&mut self, size: u64, mut hasher: Hasher) -> io::Result<()> {
        let mut buffer = vec![0; GATHER.min(usize::try_from(size).unwrap_or(GATHER))];
        let mut offset = 0;
        while offset < size {
            let want = buffer.len().min(usize::try_from(size - offset).unwrap_or(usize::MAX));
            match self.file.read_at(&mut buffer[..want], offset) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.hasher, self.offset) = (hasher, offset);
        Ok(())
    }

    fn cut(&mut self, size: u64) -> error::Result<()> {
        self.file.set_len(size).map_err(|error| self.failed(error))?;
        self.rehash(size).map_err(|error| self.failed(error))
    }

    fn verify(&mut self, size: u64, want: Option<&Digest>) -> error::Result<Digest> {
        if size > 0 && size != self.offset {
            return Err(Error::Size { reference: self.reference.clone(), have: self.offset, want: size });
        }
        let have = self.hasher.clone().finish();
        let have = match want {
            Some(want) if want.algorithm() != have.algorithm() => {
                self.rehash_with(self.offset, want.hasher()).map_err(|error| self.failed(error))?;
                self.hasher.clone().finish()
            }
            _ => have,
        };
        match want {
            Some(want) if *want != have => {
                Err(Error::Digest { reference: self.reference.clone(), have, want: want.clone() })
            }
            _ => Ok(have),
        }
    }

    /// Makes the data durable, then gives it its name, then makes the name durable.
    fn publish(&mut self, layout: &Layout, digest: &Digest) -> error::Result<()> {
        let (ingest, blob) = (layout.ingest(&self.reference), layout.blob(digest));
        let doing = |error: io::Error| Error::io(format!("committing content {digest}"), error);
        if layout.exists(digest)? {
            layout::remove_tree(&ingest)?;
            return Err(Error::Exists(digest.clone()));
        }
        self.file.set_len(self.offset).map_err(doing)?; // cuts off what a failed write left
        self.file.set_permissions(fs::Permissions::from_mode(0o444)).map_err(doing)?;
        self.file.sync_all().map_err(doing)?;
        let parent = blob.parent().ok_or(Error::Internal("a blob has no directory"))?;
        fs::create_dir_all(parent).map_err(doing)?;
        match fs::rename(ingest.join(layout::DATA), &blob) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Closed(self.reference.clone())); // aborted by somebody else
            }
            other => other.map_err(doing)?,
        }
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(doing)?;
        if digest.algorithm() != "sha256"
            && let Some(blobs) = parent.parent()
        {
            File::open(blobs).and_then(|directory| directory.sync_all()).map_err(doing)?;
        }
        layout::remove_tree(&ingest)
    }
}

fn fresh(hasher: &Hasher) -> Hasher {
    match hasher {
        Hasher::Sha256(_) => Hasher::sha256(),
        other => other.clone().finish().hasher(),
    }
}

#[async_trait]
impl Ingest for Writer {
    fn status(&self) -> Status {
        self.status.clone()
    }

    async fn digest(&mut self) -> Result<Digest> {
        self.flush().await?;
        Ok(self.sink().await?.hasher.clone().finish())
    }

    async fn write(&mut self, data: Bytes) -> Result<()> {
        if matches!(self.stage, Stage::Closed) {
            return Err(Error::Closed(self.status.reference.clone()).into());
        }
        if self.pending_size >= GATHER {
            self.push().await?;
        }
        self.pending_size += data.len();
        self.status.offset += data.len() as u64;
        self.status.updated_at = SystemTime::now();
        self.pending.push(data);
        Ok(())
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.flush().await?;
        let (reference, offset) = (self.status.reference.clone(), self.status.offset);
        if size > offset {
            return Err(Error::Truncate { reference, offset, size }.into());
        }
        if size < offset {
            self.start(move |sink| sink.cut(size)).await?;
            self.sink().await?;
        }
        Ok(())
    }

    async fn commit(&mut self, commit: Commit) -> Result<Digest> {
        Ok(self.finish(commit).await?)
    }
}

impl Drop for Writer {
    /// Writes what was gathered, off this thread; the lock is given back after.
    fn drop(&mut self) {
        let pieces = std::mem::take(&mut self.pending);
        let layout = Arc::clone(&self.layout);
        let close = move |sink: &mut Sink| {
            if let Err(error) = sink.append(&pieces) {
                tracing::warn!(reference = sink.reference, error = %error, "end of an ingest is lost");
            }
            layout.touch(&sink.reference);
        };
        match (std::mem::replace(&mut self.stage, Stage::Closed), Handle::try_current()) {
            (Stage::Closed, _) => {}
            (Stage::Idle(mut sink), Ok(runtime)) => {
                sink.held.closing();
                runtime.spawn_blocking(move || close(&mut sink));
            }
            (Stage::Idle(mut sink), Err(_)) => close(&mut sink),
            (Stage::Busy(work, (locks, reference)), runtime) => {
                locks.closing(&reference);
                let Ok(runtime) = runtime else { return };
                runtime.spawn(async move {
                    if let Ok((mut sink, Ok(()))) = work.await {
                        tokio::task::spawn_blocking(move || close(&mut sink));
                    }
                });
            }
        }
    }
}
