//! A connection: one task that reads and writes frames until the client, the user or idleness ends it.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    fault::Fault,
    frame::{Decoder, Encoder, Frame, away, reset},
    headers::Headers,
    stream::{Credit, Incoming},
    window::Windows,
};
use crate::{
    idle::Idle,
    session::{Gone, Input},
};

/// Streams of one connection at the same time; a forwarded connection takes two.
const MAX_STREAMS: usize = 1024;
/// Pieces that wait for their user, at most 32 KiB each. When there are more, the connection is not read.
const WAITING: usize = 16;
/// What windows of the client grow by at once.
pub(super) const CREDIT: u32 = 16 << 10;
/// Frames of data that wait to be written.
const UNSENT: usize = 4;
/// Answers that wait to be written. A client that has more outstanding does not read.
const ANSWERS: usize = 2 * MAX_STREAMS;
/// What is written at once.
const BATCH: usize = 64 << 10;
/// How long the last frame to a client that broke the protocol may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What everybody who uses the connection shares.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Short frames, which overtake data.
    answers: mpsc::Sender<Frame>,
    /// Data, in its order.
    pub(super) data: mpsc::Sender<Frame>,
    pub(super) windows: Arc<Windows>,
    streams: Arc<Mutex<Streams>>,
    /// Bytes that were used since the client was last told.
    used: Arc<AtomicU32>,
    gone: CancellationToken,
}

#[derive(Debug, Default)]
struct Streams {
    last: u32,
    open: HashMap<u32, Open>,
}

#[derive(Debug)]
struct Open {
    /// To the stream's user; gone after the client's last byte.
    pieces: Option<mpsc::Sender<Bytes>>,
    /// Whether our last byte is sent.
    finished: bool,
    cancelled: CancellationToken,
}

impl Link {
    /// Sends a short frame. It is dropped when too many wait, which happens to a client that does not read.
    pub(super) fn answer(&self, frame: Frame) -> bool {
        self.answers.try_send(frame).is_ok()
    }

    /// Counts bytes that were used, or thrown away, and lets the client send more once they are worth a frame.
    pub(super) fn use_up(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let used = self.used.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if used >= CREDIT {
            let delta = self.used.swap(0, Ordering::Relaxed);
            if delta > 0 && !self.answer(Frame::WindowUpdate { stream: 0, delta }) {
                self.used.fetch_add(delta, Ordering::Relaxed);
            }
        }
    }

    /// Sends the last frame of a stream, if it was not sent yet.
    pub(super) async fn finish(&self, stream: u32) -> Result<(), Gone> {
        let first = {
            let mut streams = self.streams();
            let Some(open) = streams.open.get_mut(&stream) else { return Ok(()) };
            let first = !std::mem::replace(&mut open.finished, true);
            if open.pieces.is_none() {
                streams.open.remove(&stream);
            }
            first
        };
        if first {
            self.data.send(Frame::Data { stream, fin: true, data: Bytes::new() }).await.map_err(|_| Gone)?;
            self.windows.close(stream);
        }
        Ok(())
    }

    /// Ends a stream in both directions, after all that was sent on it.
    pub(super) async fn reset(&self, stream: u32) {
        if self.streams().open.contains_key(&stream) {
            self.forget(stream);
            // Nobody is left to be told when this fails.
            let _ = self.data.send(Frame::RstStream { stream, status: reset::CANCEL }).await;
        }
    }

    /// A stream is over in both directions.
    pub(super) fn forget(&self, stream: u32) {
        if let Some(open) = self.streams().open.remove(&stream) {
            open.cancelled.cancel();
        }
        self.windows.close(stream);
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. Dropping it ends it at once.
pub(crate) struct Connection {
    link: Link,
    task: JoinHandle<()>,
}

impl Connection {
    /// Cancelled when the client is gone.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.link.gone.clone()
    }

    /// Ends every stream, says good-bye, and waits until the client has gone, so that all that was sent arrives: a
    /// socket that is closed with unread bytes takes back what it sent.
    pub(crate) async fn finish(mut self) {
        let mut left: Vec<u32> = self.link.streams().open.keys().copied().collect();
        left.sort_unstable();
        for stream in left {
            let _ = self.link.finish(stream).await;
        }
        let last = self.link.streams().last;
        let _ = self.link.data.send(Frame::GoAway { last, status: away::OK }).await;
        let _ = (&mut self.task).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.gone.cancel();
        self.task.abort();
    }
}

/// Serves a connection; the receiver gets each stream that the client opens, and is to be dropped when no more are
/// wanted.
pub(crate) fn serve(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    idle: Idle,
) -> (Connection, mpsc::Receiver<Incoming>) {
    let (answers, answers_out) = mpsc::channel(ANSWERS);
    let (data, data_out) = mpsc::channel(UNSENT);
    let (arrivals, incoming) = mpsc::channel(WAITING);
    let gone = CancellationToken::new();
    let windows = Arc::new(Windows::new());
    let link = Link { answers, data, windows, streams: Arc::default(), used: Arc::default(), gone: gone.clone() };
    let reader = Reader { link: link.clone(), arrivals };
    let task = tokio::spawn(async move {
        let (from, to) = tokio::io::split(io);
        let reading = read(from, reader, &idle);
        let writing = write(to, answers_out, data_out, &idle);
        tokio::select! {
            () = both(reading, writing, &gone) => {}
            () = idle.expired() => tracing::debug!("idle SPDY connection ended"),
        }
        gone.cancel();
    });
    (Connection { link, task }, incoming)
}

/// Ends when the client is gone. After our last frame the client is still read, and nothing of it used.
async fn both(
    reading: impl Future<Output = Result<(), End>>,
    writing: impl Future<Output = io::Result<()>>,
    gone: &CancellationToken,
) {
    tokio::pin!(reading, writing);
    tokio::select! {
        end = &mut reading => {
            gone.cancel();
            match end {
                Ok(()) => {}
                Err(End::Io(error)) => tracing::debug!(%error, "reading a SPDY connection"),
                Err(End::Fault(fault)) => {
                    tracing::debug!(error = %fault, "SPDY client broke the protocol");
                    // The reader has put the last frame in line.
                    let _ = tokio::time::timeout(FAREWELL, writing).await;
                }
            }
        }
        done = &mut writing => match done {
            Ok(()) => _ = reading.await,
            Err(error) => tracing::debug!(%error, "writing to a SPDY connection"),
        },
    }
}

enum End {
    Io(io::Error),
    Fault(Fault),
}

async fn read(mut from: impl AsyncRead + Unpin, mut reader: Reader, idle: &Idle) -> Result<(), End> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    loop {
        loop {
            match decoder.decode(&mut buffer) {
                Ok(None) => break,
                Ok(Some(Frame::GoAway { .. })) => return Ok(()),
                Ok(Some(frame)) => reader.take(frame).await?,
                Err(fault) => {
                    let last = reader.link.streams().last;
                    reader.link.answer(Frame::GoAway { last, status: away::PROTOCOL_ERROR });
                    return Err(End::Fault(fault));
                }
            }
        }
        buffer.reserve(16 << 10);
        if from.read_buf(&mut buffer).await.map_err(End::Io)? == 0 {
            return Ok(());
        }
        idle.touch();
    }
}

struct Reader {
    link: Link,
    arrivals: mpsc::Sender<Incoming>,
}

impl Reader {
    async fn take(&mut self, frame: Frame) -> Result<(), End> {
        match frame {
            Frame::SynStream { stream, fin, unidirectional, headers, .. } => {
                self.open(stream, fin, unidirectional, headers).await;
            }
            Frame::Data { stream, fin, data } => self.data(stream, fin, data).await,
            Frame::RstStream { stream, .. } => self.link.forget(stream),
            Frame::WindowUpdate { stream, delta } => {
                if !self.link.windows.grow(stream, delta) {
                    self.link.forget(stream);
                }
            }
            Frame::Settings(settings) => self.link.windows.set(&settings),
            // An even number is the answer to a ping of ours, and there are none.
            Frame::Ping(id) if id % 2 == 1 => _ = self.link.answer(Frame::Ping(id)),
            Frame::Headers { stream, fin: true, .. } => self.data(stream, true, Bytes::new()).await,
            Frame::Ping(_) | Frame::Headers { .. } | Frame::SynReply { .. } | Frame::GoAway { .. } => {}
        }
        Ok(())
    }

    async fn open(&mut self, stream: u32, fin: bool, finished: bool, headers: Headers) {
        let (sender, pieces) = mpsc::channel(WAITING);
        let cancelled = self.link.gone.child_token();
        let status = {
            let mut streams = self.link.streams();
            if stream.is_multiple_of(2) || stream <= streams.last {
                Some(reset::PROTOCOL_ERROR)
            } else if streams.open.len() >= MAX_STREAMS {
                streams.last = stream;
                Some(reset::REFUSED_STREAM)
            } else {
                streams.last = stream;
                let pieces = (!fin).then_some(sender);
                streams.open.insert(stream, Open { pieces, finished, cancelled: cancelled.clone() });
                None
            }
        };
        if let Some(status) = status {
            self.link.answer(Frame::RstStream { stream, status });
            return;
        }
        self.link.windows.open(stream);
        let input = Input::new(pieces, Some(Credit::new(stream, self.link.clone())));
        let incoming = Incoming { stream, headers, input, cancelled, link: self.link.clone() };
        if let Err(refused) = self.arrivals.send(incoming).await {
            refused.0.refuse();
        }
    }

    async fn data(&mut self, stream: u32, fin: bool, data: Bytes) {
        let pieces = self.link.streams().open.get(&stream).and_then(|open| open.pieces.clone());
        let count = data.len();
        let used = match pieces {
            // Waiting here is what holds a fast client back.
            Some(pieces) if count > 0 => pieces.send(data).await.is_ok(),
            Some(_) => true,
            None => count == 0,
        };
        if !used {
            // It counts in the window of all.
            self.link.use_up(count);
        }
        if fin {
            let mut streams = self.link.streams();
            if let Some(open) = streams.open.get_mut(&stream) {
                open.pieces = None;
                if open.finished {
                    streams.open.remove(&stream);
                }
            }
        }
    }
}

/// Writes until a good-bye is written.
async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut answers: mpsc::Receiver<Frame>,
    mut data: mpsc::Receiver<Frame>,
    idle: &Idle,
) -> io::Result<()> {
    let (mut encoder, mut out, mut last) = (Encoder::default(), BytesMut::new(), false);
    while !last {
        let first = tokio::select! {
            biased;
            frame = answers.recv() => frame,
            frame = data.recv() => frame,
        };
        let Some(first) = first else { break };
        let mut next = Some(first);
        while let Some(frame) = next {
            last = matches!(frame, Frame::GoAway { .. });
            encoder.encode(&frame, &mut out);
            let more = !last && out.len() < BATCH;
            next = if more { answers.try_recv().or_else(|_| data.try_recv()).ok() } else { None };
        }
        to.write_all(&out).await?;
        to.flush().await?;
        idle.touch();
        out.clear();
    }
    to.shutdown().await
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
