//! One served connection: checks frames, starts handlers, routes stream data. Answers are written by the handlers'
//! tasks ([`super::handler`]).

use super::handler::{Handler, respond};
use super::service::{Context, Peer, Service};
use super::stream::Incoming;
use crate::frame::{Decoded, Flags, Frame, Header, Kind, TooLarge};
use crate::limits::Limits;
use crate::message::Request;
use crate::queue::{self, Closed, Refused, Sender};
use crate::reader::Reader;
use crate::status::Status;
use crate::writer;
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long answers that are queued may take to be written once the connection is ending.
const FLUSH: Duration = Duration::from_secs(5);

/// What a connection needs to be served.
pub(super) struct Connection {
    pub(super) services: Arc<HashMap<String, Arc<dyn Service>>>,
    pub(super) limits: Limits,
    pub(super) max_calls: usize,
    pub(super) drain: Duration,
    pub(super) peer: Option<Peer>,
    pub(super) shutdown: CancellationToken,
}

impl Connection {
    /// Serves until the peer closes, the connection breaks, or shutdown and no call is left (or the drain is over).
    pub(super) async fn run<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (frames, queued) = queue::channel(self.limits.write_queue);
        let mut writing = pin!(writer::run(write, queued));
        let drained = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(self.drain).await;
        };
        let calls = Running { connection: &self, frames, tasks: JoinSet::new(), inputs: HashMap::new(), last: 0 };
        let end = tokio::select! {
            end = calls.serve(Reader::new(read)) => end,
            end = &mut writing => return log_end(end),
            () = drained => Ok(()),
        };
        log_end(end);
        // The calls are gone, and with them every sender: the writer ends when it has written what is queued.
        match timeout(FLUSH, writing).await {
            Ok(end) => log_end(end),
            Err(_) => tracing::debug!("ttrpc peer does not read its last answers"),
        }
    }
}

fn log_end(end: io::Result<()>) {
    if let Err(error) = end {
        tracing::debug!(%error, "ttrpc connection broke");
    }
}

/// The calls of a connection that run. Dropping it drops their handlers.
struct Running<'a> {
    connection: &'a Connection,
    frames: Sender<Bytes>,
    tasks: JoinSet<u32>,
    /// Streams whose client still sends.
    inputs: HashMap<u32, Input>,
    /// The highest stream id so far.
    last: u32,
}

/// Where the messages of a stream go.
struct Input {
    messages: Option<Sender<Result<Bytes, Status>>>,
    /// Makes the handler's task end the stream with this.
    fail: Option<oneshot::Sender<Status>>,
}

impl Drop for Input {
    /// Without this a lost connection would look like the client's last message to a handler.
    fn drop(&mut self) {
        if let Some(messages) = self.messages.take() {
            messages.send_last(Err(Status::unavailable("connection closed")));
        }
    }
}

impl Running<'_> {
    async fn serve<R: AsyncRead + Unpin>(mut self, mut reader: Reader<R>) -> io::Result<()> {
        let shutdown = &self.connection.shutdown;
        loop {
            if shutdown.is_cancelled() && self.tasks.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = shutdown.cancelled(), if !shutdown.is_cancelled() => {}
                Some(ended) = self.tasks.join_next() => self.forget(ended),
                decoded = reader.next() => match decoded? {
                    None => return Ok(()),
                    Some(decoded) => {
                        if self.handle(decoded).await.is_err() {
                            return Ok(()); // the writer is gone and has said why
                        }
                    }
                },
            }
        }
    }

    fn forget(&mut self, ended: Result<u32, tokio::task::JoinError>) {
        if let Ok(stream) = ended
            && let Some(mut input) = self.inputs.remove(&stream)
        {
            input.messages = None; // the handler is done: nobody is left to be told anything
        }
        if self.inputs.is_empty() && self.inputs.capacity() > 64 {
            self.inputs = HashMap::new();
        }
    }

    async fn handle(&mut self, decoded: Decoded) -> Result<(), Closed> {
        let frame = match decoded {
            Decoded::Frame(frame) => frame,
            Decoded::Oversize(header) => return self.oversize(header).await,
        };
        let stream = frame.header.stream;
        if stream % 2 == 0 {
            return self.refuse(stream, Status::invalid("stream id must be odd for streams that clients open")).await;
        }
        match frame.header.kind {
            Kind::Request if stream <= self.last => {
                self.refuse(stream, Status::invalid("stream id must be higher than all before it")).await
            }
            Kind::Request => {
                self.last = stream;
                match self.start(frame) {
                    Ok(()) => Ok(()),
                    Err(status) => self.refuse(stream, status).await,
                }
            }
            Kind::Data => self.data(frame).await,
            Kind::Response | Kind::Other(_) => Ok(()), // not for servers, or not known yet
        }
    }

    /// Answers a stream that has no handler.
    async fn refuse(&self, stream: u32, status: Status) -> Result<(), Closed> {
        respond(&self.frames, stream, Err(status)).await
    }

    /// A frame that is skipped because of its length ends its stream.
    async fn oversize(&mut self, header: Header) -> Result<(), Closed> {
        let status = Status::from(TooLarge { length: header.length as usize });
        if header.kind == Kind::Data {
            self.fail(header.stream, status);
            return Ok(());
        }
        if header.kind == Kind::Request && header.stream % 2 == 1 {
            self.last = self.last.max(header.stream);
        }
        self.refuse(header.stream, status).await
    }

    /// Starts the handler of a request.
    fn start(&mut self, frame: Frame) -> Result<(), Status> {
        let connection = self.connection;
        if connection.shutdown.is_cancelled() {
            return Err(Status::unavailable("the server is shutting down"));
        }
        while let Some(ended) = self.tasks.try_join_next() {
            self.forget(ended);
        }
        if self.tasks.len() >= connection.max_calls {
            return Err(Status::exhausted(format!("more than {} calls on one connection", connection.max_calls)));
        }
        let Header { stream, flags, .. } = frame.header;
        let request = Request::decode(frame.data)
            .map_err(|error| Status::invalid(format!("decode request envelope: {error}")))?;
        let Some(service) = connection.services.get(&request.service) else {
            return Err(Status::unimplemented(format!("service {}", request.service)));
        };
        let context = Context {
            metadata: request.metadata.into(),
            deadline: deadline(request.timeout_nano),
            peer: connection.peer,
        };
        let handler =
            Handler { service: service.clone(), method: request.method, context, stream, frames: self.frames.clone() };
        if flags.is_stream() {
            let (input, incoming, failed) = self.input(request.payload, flags);
            self.inputs.insert(stream, input);
            self.tasks.spawn(handler.stream(incoming, failed));
        } else {
            self.tasks.spawn(handler.call(request.payload));
        }
        Ok(())
    }

    /// The way from the client to a streaming handler. What came with the request is its first message, except for a
    /// stream of client messages that starts empty.
    fn input(&self, first: Bytes, flags: Flags) -> (Input, Incoming, oneshot::Receiver<Status>) {
        let (messages, receiver) = queue::channel(self.connection.limits.stream_queue);
        let (fail, failed) = oneshot::channel();
        let closed = flags.contains(Flags::REMOTE_CLOSED);
        if (closed || !first.is_empty())
            && let Some(permit) = messages.try_reserve(first.len())
        {
            permit.send(Ok(first)); // the queue is empty, so there is room
        }
        let messages = (!closed).then_some(messages);
        (Input { messages, fail: Some(fail) }, Incoming { messages: receiver }, failed)
    }

    /// Hands a message to the handler of its stream; waits for room within the stall limit.
    async fn data(&mut self, frame: Frame) -> Result<(), Closed> {
        let Header { stream, flags, .. } = frame.header;
        let Some(input) = self.inputs.get_mut(&stream) else {
            if stream > self.last {
                return self.refuse(stream, Status::invalid("data on a stream that was never opened")).await;
            }
            return Ok(()); // the stream is over and the client has been told, or is about to read it
        };
        let Some(messages) = &input.messages else {
            self.fail(stream, Status::invalid("data on a stream whose client said that no more comes"));
            return Ok(());
        };
        if !flags.contains(Flags::NO_DATA) {
            // A handler that receives no more may still be sending, so only a full queue ends the stream.
            let sent = messages.send_within(self.connection.limits.stall, frame.data.len(), Ok(frame.data)).await;
            if let Err(Refused::Full) = sent {
                self.fail(stream, Status::exhausted("stream messages are not being received"));
                return Ok(());
            }
        }
        if flags.contains(Flags::REMOTE_CLOSED) {
            input.messages = None;
        }
        Ok(())
    }

    /// Ends a stream with an error, through its handler's task, so that it is answered once.
    fn fail(&mut self, stream: u32, status: Status) {
        let Some(mut input) = self.inputs.remove(&stream) else { return };
        if let Some(messages) = input.messages.take() {
            messages.send_last(Err(status.clone()));
        }
        if let Some(fail) = input.fail.take() {
            let _ = fail.send(status); // a handler that is done has answered
        }
    }
}

/// When a caller stops waiting. Zero means never; a negative time has passed.
fn deadline(timeout_nano: i64) -> Option<Instant> {
    match u64::try_from(timeout_nano) {
        Ok(0) => None,
        Ok(nanos) => Instant::now().checked_add(Duration::from_nanos(nanos)),
        Err(_) => Some(Instant::now()),
    }
}
