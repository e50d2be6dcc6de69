//! Clients that watch a container's output as it comes.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::timeout,
};

use crate::line::Stream;

/// Some output, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it came from.
    pub stream: Stream,
    /// The bytes; shared between all that watch.
    pub data: Bytes,
}

/// Output from the moment of attaching on. Ends when the container's streams end, or when this side did not take
/// anything for the patience of [`crate::Settings`].
#[derive(Debug)]
pub struct Attachment {
    chunks: mpsc::Receiver<Chunk>,
    let_go: Arc<AtomicBool>,
}

impl Attachment {
    /// The next output; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<Chunk> {
        self.chunks.recv().await
    }

    /// Whether output was lost because this side did not take it in time.
    pub fn was_let_go(&self) -> bool {
        self.let_go.load(Ordering::Relaxed)
    }
}

/// Chunks that wait for one client: with chunks of at most 64 KiB, 1 MiB.
const WAITING: usize = 16;

/// Everybody who watches one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audience(Arc<Mutex<Option<Vec<Watcher>>>>);

#[derive(Clone, Debug)]
struct Watcher {
    stdout: bool,
    stderr: bool,
    sender: mpsc::Sender<Chunk>,
    let_go: Arc<AtomicBool>,
}

impl Audience {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }

    /// Adds a client for one or both streams; after the end it gets nothing but the end.
    pub(crate) fn attach(&self, stdout: bool, stderr: bool) -> Attachment {
        let (sender, chunks) = mpsc::channel(WAITING);
        let let_go = Arc::new(AtomicBool::new(false));
        if let Some(watchers) = self.lock().as_mut() {
            watchers.push(Watcher { stdout, stderr, sender, let_go: let_go.clone() });
        }
        Attachment { chunks, let_go }
    }

    /// Gives output to everybody who wants it. Waits for a slow client no longer than `patience`, and then not again:
    /// it is let go. All are waited for at once, so many slow ones cost no more than one.
    pub(crate) async fn send(&self, stream: Stream, data: &[u8], patience: Duration) {
        let watchers = self.wanting(stream);
        if watchers.is_empty() {
            return;
        }
        let chunk = Chunk { stream, data: Bytes::copy_from_slice(data) };
        let mut slow = Vec::new();
        let mut gone = Vec::new();
        for watcher in watchers {
            match watcher.sender.try_send(chunk.clone()) {
                Ok(()) => {}
                Err(TrySendError::Full(chunk)) => slow.push((watcher, chunk)),
                Err(TrySendError::Closed(_)) => gone.push(watcher.sender),
            }
        }
        let deadline = tokio::time::Instant::now() + patience;
        for (watcher, chunk) in slow {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !matches!(timeout(left, watcher.sender.send(chunk)).await, Ok(Ok(()))) {
                tracing::debug!(?stream, "client that does not read let go");
                watcher.let_go.store(true, Ordering::Relaxed);
                gone.push(watcher.sender);
            }
        }
        if !gone.is_empty() {
            self.forget(&gone);
        }
    }

    /// No more output will come.
    pub(crate) fn end(&self) {
        *self.lock() = None;
    }

    /// Whether anybody watches the stream.
    pub(crate) fn wants(&self, stream: Stream) -> bool {
        !self.wanting(stream).is_empty()
    }

    fn wanting(&self, stream: Stream) -> Vec<Watcher> {
        let wants = |watcher: &&Watcher| match stream {
            Stream::Stdout => watcher.stdout,
            Stream::Stderr => watcher.stderr,
        };
        self.lock().iter().flatten().filter(wants).cloned().collect()
    }

    fn forget(&self, gone: &[mpsc::Sender<Chunk>]) {
        if let Some(watchers) = self.lock().as_mut() {
            watchers.retain(|watcher| !gone.iter().any(|sender| sender.same_channel(&watcher.sender)));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Watcher>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
