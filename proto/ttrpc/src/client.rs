//! The calling end of a connection: unary calls, streams, deadlines. It does not reconnect.

mod calls;
mod connection;
mod stream;

pub use stream::{Stream, StreamReceiver, StreamSender};

use crate::error::Error;
use crate::frame::{self, Flags, HEADER_LEN, Kind};
use crate::limits::Limits;
use crate::message::Request;
use crate::metadata::Metadata;
use crate::queue;
use crate::status::Status;
use bytes::{Bytes, BytesMut};
use calls::{Calls, Pending, Slot};
use prost::Message;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How one call or stream is made.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// How long the call (a stream: all of it) may take. It is sent along, and enforced here too. `None` means without
    /// limit.
    pub timeout: Option<Duration>,
    /// Pairs to send beside the request.
    pub metadata: Metadata,
}

impl CallOptions {
    /// Options with a time limit.
    pub fn timeout(limit: Duration) -> Self {
        Self { timeout: Some(limit), ..Self::default() }
    }

    /// Adds a metadata pair.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.append(key, value);
        self
    }
}

/// A connection to a server. Clones share it; it is closed when the last clone and the last stream are gone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    calls: Arc<Calls>,
    frames: queue::Sender<Bytes>,
    limits: Limits,
}

impl Client {
    /// Connects to a Unix socket in the file system.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] with the cause, such as a missing socket or a full backlog.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path).await;
        let failed = |source: io::Error| Error::Connect { path: path.into(), source: Arc::new(source) };
        Ok(Self::new(stream.map_err(failed)?))
    }

    /// Connects to an abstract Unix socket. `name` is given without the leading zero byte.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub async fn connect_abstract(name: impl AsRef<[u8]>) -> Result<Self, Error> {
        let name = [b"\0", name.as_ref()].concat();
        Self::connect(PathBuf::from(std::ffi::OsStr::from_bytes(&name))).await
    }

    /// A client on a connection that exists, with the default limits. Starts a task on the current runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new<IO>(io: IO) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::with_limits(io, Limits::default())
    }

    /// As [`Self::new`], with other limits.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn with_limits<IO>(io: IO, limits: Limits) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let calls = Arc::new(Calls::default());
        let (frames, queued) = queue::channel(limits.write_queue);
        tokio::spawn(connection::run(io, queued, calls.clone(), limits.stall));
        Self { shared: Arc::new(Shared { calls, frames, limits }) }
    }

    /// Calls a unary method and decodes its answer.
    ///
    /// Dropping the future forgets the call: a late answer is ignored. The server is not told (the protocol cannot),
    /// beyond the time limit that was sent.
    ///
    /// # Errors
    ///
    /// [`Error::Status`] with what the server answered, with `DeadlineExceeded` when the time limit passed, or with
    /// `ResourceExhausted` when the request is too large, in which case nothing was sent. [`Error::Closed`] when the
    /// connection is lost.
    pub async fn call<Req, Resp>(
        &self,
        service: &str,
        method: &str,
        request: &Req,
        options: CallOptions,
    ) -> Result<Resp, Error>
    where
        Req: Message,
        Resp: Message + Default,
    {
        let answer = self.call_encoded(service, method, request.encode_to_vec().into(), options).await?;
        Resp::decode(answer).map_err(|source| Error::Decode { what: "response message", source })
    }

    /// As [`Self::call`], with messages that are already, and still, encoded.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn call_encoded(
        &self,
        service: &str,
        method: &str,
        payload: Bytes,
        options: CallOptions,
    ) -> Result<Bytes, Error> {
        let deadline = deadline(&options);
        let frame = request(service, method, payload, options, Flags::NONE)?;
        before(deadline, async {
            let (answer, received) = oneshot::channel();
            let _pending = self.shared.open(frame, Slot::Unary(answer)).await?;
            received.await.map_err(|_| Error::Closed(None))?
        })
        .await
    }

    /// Opens a stream on which the client sends: a client-streaming or a bidirectional method.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]; an error of the server arrives with the first `recv`.
    pub async fn stream(&self, service: &str, method: &str, options: CallOptions) -> Result<Stream, Error> {
        self.open_stream(service, method, Bytes::new(), options, Flags::OPEN_EMPTY).await
    }

    /// Opens a stream on which only the server sends, after one request.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]; an error of the server arrives with the first `recv`.
    pub async fn server_stream<Req: Message>(
        &self,
        service: &str,
        method: &str,
        request: &Req,
        options: CallOptions,
    ) -> Result<Stream, Error> {
        let payload = request.encode_to_vec().into();
        self.open_stream(service, method, payload, options, Flags::REMOTE_CLOSED).await
    }

    async fn open_stream(
        &self,
        service: &str,
        method: &str,
        payload: Bytes,
        options: CallOptions,
        flags: Flags,
    ) -> Result<Stream, Error> {
        let deadline = deadline(&options);
        let frame = request(service, method, payload, options, flags)?;
        let (messages, received) = queue::channel(self.shared.limits.stream_queue);
        let pending = before(deadline, self.shared.open(frame, Slot::Stream(messages))).await?;
        let sends = flags.contains(Flags::REMOTE_OPEN);
        Ok(Stream::new(self.shared.clone(), pending, received, deadline, sends))
    }

    /// Waits until the connection is gone, for whatever reason. Every call on it has failed or is about to.
    pub async fn closed(&self) {
        self.shared.calls.closed().await;
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.calls.is_closed()
    }

    /// Closes the connection now, for every clone. Running calls fail with [`Error::Closed`].
    pub fn close(&self) {
        self.shared.calls.close(None);
    }
}

impl Shared {
    /// Queues a request frame under a new stream id. Ids go up in the order of the queue, as the protocol demands.
    async fn open(&self, mut frame: BytesMut, slot: Slot) -> Result<Pending, Error> {
        let Ok(permit) = self.frames.reserve(frame.len()).await else { return Err(self.calls.reason()) };
        Calls::open(&self.calls, slot, |stream| {
            frame::set_stream(&mut frame, stream);
            permit.send(frame.freeze());
        })
    }

    /// Queues a data frame of a stream that is still open.
    async fn send(&self, stream: u32, frame: Bytes) -> Result<(), Error> {
        let Ok(permit) = self.frames.reserve(frame.len()).await else { return Err(self.calls.reason()) };
        self.calls.check_open(stream)?;
        permit.send(frame);
        Ok(())
    }

    /// Queues the end of a direction if there is room now; for a stream that is dropped.
    fn try_end(&self, stream: u32) {
        if self.calls.check_open(stream).is_ok()
            && let Some(permit) = self.frames.try_reserve(HEADER_LEN)
        {
            permit.send(frame::end(stream));
        }
    }
}

/// The frame of a request, without its stream id.
fn request(service: &str, method: &str, payload: Bytes, options: CallOptions, flags: Flags) -> Result<BytesMut, Error> {
    let nanos = |limit: Duration| i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
    let request = Request {
        service: service.into(),
        method: method.into(),
        payload,
        timeout_nano: options.timeout.map_or(0, nanos),
        metadata: options.metadata.into(),
    };
    Ok(frame::encode(0, Kind::Request, flags, &request)?)
}

/// When the time limit ends; a limit that no clock can hold is none.
fn deadline(options: &CallOptions) -> Option<Instant> {
    options.timeout.and_then(|limit| Instant::now().checked_add(limit))
}

/// Runs `work` until the deadline.
async fn before<T>(deadline: Option<Instant>, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match deadline {
        None => work.await,
        Some(at) if at <= Instant::now() => Err(Status::deadline().into()),
        Some(at) => tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| Err(Status::deadline().into())),
    }
}
