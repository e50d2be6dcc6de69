//! Blobs over as many connections as are worth it: large ones in parts that are fetched side by side and handed out in
//! order, within a budget that all downloads of the node share.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use kevel_model::Descriptor;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use crate::{BlobStream, Error, Session, Why};

/// How blobs are cut into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Bytes of a part; blobs that don't make two parts come over one connection. 0 for never.
    pub size: u64,
    /// Parts of one blob that are fetched at the same time.
    pub connections: usize,
}

/// What all downloads of the node may take together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    connections: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_in_all: u32,
}

impl Budget {
    /// A budget of so many connections, and so many bytes that have arrived and are not used up; at least one of each.
    pub fn new(connections: usize, bytes: usize) -> Self {
        let bytes_in_all = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        let connections = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
        Self { connections, bytes: Arc::new(Semaphore::new(bytes_in_all as usize)), bytes_in_all }
    }

    /// Waits for room for so many bytes; for more than there is, all of it.
    pub async fn bytes(&self, count: usize) -> Option<OwnedSemaphorePermit> {
        self.bytes.clone().acquire_many_owned(self.at_most(count as u64)).await.ok()
    }

    fn at_most(&self, count: u64) -> u32 {
        u32::try_from(count).unwrap_or(u32::MAX).min(self.bytes_in_all)
    }

    async fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().acquire_owned().await.ok()
    }

    /// A connection and room for a part, if both are free now. Nobody who holds a part waits for another, so that two
    /// blobs can't wait for each other.
    fn try_part(&self, bytes: u64) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let connection = self.connections.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(self.at_most(bytes)).ok()?;
        Some((connection, bytes))
    }
}

/// A blob on its way, in order. Dropping it ends all its connections.
pub struct BlobFetch {
    session: Session,
    descriptor: Descriptor,
    parts: Parts,
    budget: Budget,
    /// Bytes handed out, counted from the blob's start.
    offset: u64,
    /// Where the next part begins.
    next: u64,
    running: VecDeque<Part>,
    tasks: JoinSet<()>,
    /// All that is left over one connection: small blobs, and hosts that know no ranges.
    single: Option<(BlobStream, Option<OwnedSemaphorePermit>)>,
}

/// A part that is being fetched. What has arrived of it waits in the channel, at most the part.
struct Part {
    pieces: mpsc::UnboundedReceiver<Result<Bytes, Error>>,
    room: Option<OwnedSemaphorePermit>,
}

impl Session {
    /// Fetches a blob from `offset` on. Fails at once if no host has it.
    pub async fn fetch(
        &self,
        descriptor: &Descriptor,
        offset: u64,
        parts: Parts,
        budget: &Budget,
    ) -> Result<BlobFetch, Error> {
        let mut fetch = BlobFetch {
            session: self.clone(),
            descriptor: descriptor.clone(),
            parts,
            budget: budget.clone(),
            offset,
            next: offset,
            running: VecDeque::new(),
            tasks: JoinSet::new(),
            single: None,
        };
        let connection = budget.connection().await;
        let left = descriptor.size.saturating_sub(offset);
        let end = if parts.size > 0 && parts.connections > 1 && left >= 2 * parts.size {
            offset + parts.size
        } else {
            descriptor.size
        };
        let room = if end < descriptor.size { budget.bytes(saturating(end - offset)).await } else { None };
        // The first answer tells whether the host knows ranges.
        let first = match self.part(descriptor, offset, end).await {
            Err(error) if end < descriptor.size && refuses_ranges(&error) => self.blob(descriptor, offset).await?,
            other => other?,
        };
        fetch.begin(first, end, connection, room);
        Ok(fetch)
    }
}

impl BlobFetch {
    fn begin(
        &mut self,
        mut first: BlobStream,
        end: u64,
        connection: Option<OwnedSemaphorePermit>,
        room: Option<OwnedSemaphorePermit>,
    ) {
        if end == self.descriptor.size || first.is_whole() {
            first.extend();
            self.single = Some((first, connection));
        } else {
            self.run(end, connection, room, async move |_| Ok(first));
        }
    }

    /// How many bytes have been handed out, counted from the blob's start.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece; `None` when the blob is complete. With it the room that it takes, where that was reserved
    /// before; it is free again when that is dropped.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Option<OwnedSemaphorePermit>)>, Error> {
        loop {
            if let Some((stream, _)) = &mut self.single {
                let piece = stream.next().await?;
                self.offset = stream.offset();
                return Ok(piece.map(|piece| (piece, None)));
            }
            if self.offset >= self.descriptor.size {
                return Ok(None);
            }
            self.start_parts().await;
            let Some(part) = self.running.front_mut() else { continue };
            match part.pieces.recv().await {
                Some(Ok(piece)) => {
                    self.offset += piece.len() as u64;
                    let room = part.room.as_mut().and_then(|room| room.split(piece.len().min(room.num_permits())));
                    return Ok(Some((piece, room)));
                }
                None => drop(self.running.pop_front()),
                Some(Err(error)) if refuses_ranges(&error) => self.go_on_alone().await?,
                Some(Err(error)) => return Err(error),
            }
        }
    }

    /// Starts as many parts as the budget has room for, and at least one.
    async fn start_parts(&mut self) {
        while self.next < self.descriptor.size && self.running.len() < self.parts.connections {
            let end = (self.next + self.parts.size).min(self.descriptor.size);
            let (connection, room) = match self.budget.try_part(end - self.next) {
                Some((connection, room)) => (Some(connection), Some(room)),
                None if self.running.is_empty() => {
                    (self.budget.connection().await, self.budget.bytes(saturating(end - self.next)).await)
                }
                None => return,
            };
            let (session, descriptor) = (self.session.clone(), self.descriptor.clone());
            self.run(end, connection, room, async move |begin| {
                let stream = session.part(&descriptor, begin, end).await?;
                if end < descriptor.size && stream.is_whole() {
                    return Err(stream.error(Why::Protocol("knows ranges no more".to_owned())));
                }
                Ok(stream)
            });
        }
    }

    fn run<F>(
        &mut self,
        end: u64,
        connection: Option<OwnedSemaphorePermit>,
        room: Option<OwnedSemaphorePermit>,
        open: impl FnOnce(u64) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<BlobStream, Error>> + Send + 'static,
    {
        let (sender, pieces) = mpsc::unbounded_channel();
        let begin = std::mem::replace(&mut self.next, end);
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(async move {
            let _connection = connection;
            if let Err(error) = pump(open(begin), &sender).await {
                let _ = sender.send(Err(error)); // nobody listens: nobody needs to know
            }
        });
        self.running.push_back(Part { pieces, room });
    }

    /// Fetches what is left over one connection.
    async fn go_on_alone(&mut self) -> Result<(), Error> {
        tracing::debug!(digest = %self.descriptor.digest, offset = self.offset, "ranges are refused, going on without");
        self.running.clear();
        self.tasks.abort_all();
        let connection = self.budget.connection().await;
        self.single = Some((self.session.blob(&self.descriptor, self.offset).await?, connection));
        Ok(())
    }
}

/// Hands on a part as it arrives.
async fn pump(
    open: impl Future<Output = Result<BlobStream, Error>>,
    sender: &mpsc::UnboundedSender<Result<Bytes, Error>>,
) -> Result<(), Error> {
    let mut stream = open.await?;
    while let Some(piece) = stream.next().await? {
        if sender.send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether an error may be due to asking for a part.
fn refuses_ranges(error: &Error) -> bool {
    let Error::Hosts { answers, .. } = error else { return false };
    answers.iter().any(|answer| {
        matches!(answer.why, Why::Protocol(_) | Why::Damaged(_) | Why::Status { status: 400 | 416 | 501, .. })
    })
}

fn saturating(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl fmt::Debug for BlobFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobFetch").field("digest", &self.descriptor.digest).field("offset", &self.offset).finish()
    }
}
