//! A stream of the client: messages out, messages in.

use super::calls::Pending;
use super::{Shared, before};
use crate::error::Error;
use crate::frame::{self, Flags, Kind};
use crate::queue;
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// An open stream. Dropping it, or both of its halves, ends it: the server is told that no more messages come, and
/// what it still sends is ignored.
pub struct Stream {
    sender: StreamSender,
    receiver: StreamReceiver,
}

/// The sending half of a [`Stream`].
pub struct StreamSender {
    state: Arc<State>,
}

/// The receiving half of a [`Stream`].
pub struct StreamReceiver {
    state: Arc<State>,
    messages: queue::Receiver<Result<Bytes, Error>>,
}

/// What both halves share. The last one to go ends the stream.
struct State {
    client: Arc<Shared>,
    pending: Pending,
    deadline: Option<Instant>,
    /// Whether the client may send no more.
    sent_all: AtomicBool,
}

impl Drop for State {
    fn drop(&mut self) {
        if !*self.sent_all.get_mut() {
            self.client.try_end(self.pending.stream);
        }
    }
}

impl Stream {
    pub(super) fn new(
        client: Arc<Shared>,
        pending: Pending,
        messages: queue::Receiver<Result<Bytes, Error>>,
        deadline: Option<Instant>,
        sends: bool,
    ) -> Self {
        let state = Arc::new(State { client, pending, deadline, sent_all: AtomicBool::new(!sends) });
        Self { sender: StreamSender { state: state.clone() }, receiver: StreamReceiver { state, messages } }
    }

    /// See [`StreamSender::send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), Error> {
        self.sender.send(message).await
    }

    /// See [`StreamSender::close_send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn close_send(&mut self) -> Result<(), Error> {
        self.sender.close_send().await
    }

    /// See [`StreamReceiver::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn recv<M: Message + Default>(&mut self) -> Result<Option<M>, Error> {
        self.receiver.recv().await
    }

    /// Ends sending and waits for the one answer of a client-streaming method.
    ///
    /// # Errors
    ///
    /// As [`Self::recv`]; [`Error::Protocol`] when the stream ends without an answer.
    pub async fn finish<M: Message + Default>(mut self) -> Result<M, Error> {
        match self.close_send().await {
            Ok(()) | Err(Error::Ended) => {} // a server may answer before it has everything
            Err(error) => return Err(error),
        }
        self.recv().await?.ok_or(Error::Protocol("the stream ended without an answer"))
    }

    /// The two halves, for sending and receiving at the same time.
    pub fn split(self) -> (StreamSender, StreamReceiver) {
        (self.sender, self.receiver)
    }
}

impl StreamSender {
    /// Sends a message. Returns when it is queued; waits while the connection's queue is full. Cancel safe: the message
    /// is queued whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when either side has ended the stream (what the server ended it with is read with `recv`),
    /// [`Error::Closed`] when the connection is lost, `ResourceExhausted` when the message is too large (the stream
    /// goes on), `DeadlineExceeded` when the time limit of the stream passes.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), Error> {
        if self.state.sent_all.load(Ordering::Relaxed) {
            return Err(Error::Ended);
        }
        let stream = self.state.pending.stream;
        let frame = frame::encode(stream, Kind::Data, Flags::NONE, message)?.freeze();
        before(self.state.deadline, self.state.client.send(stream, frame)).await
    }

    /// Tells the server that no more messages come. Further calls do nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn close_send(&mut self) -> Result<(), Error> {
        if self.state.sent_all.load(Ordering::Relaxed) {
            return Ok(());
        }
        let stream = self.state.pending.stream;
        before(self.state.deadline, self.state.client.send(stream, frame::end(stream))).await?;
        self.state.sent_all.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl StreamReceiver {
    /// The next message; `None` after the last. A client-streaming method answers with one message. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::Status`] with what the server ended the stream with, `ResourceExhausted` when messages were left
    /// unreceived for too long, `DeadlineExceeded` when the time limit of the stream passes; [`Error::Closed`] when the
    /// connection is lost. After an error other than a deadline or a decoding error the stream is over.
    pub async fn recv<M: Message + Default>(&mut self) -> Result<Option<M>, Error> {
        let next = async { self.messages.recv().await.transpose() };
        let Some(message) = before(self.state.deadline, next).await? else { return Ok(None) };
        let message = M::decode(message).map_err(|source| Error::Decode { what: "stream message", source })?;
        Ok(Some(message))
    }
}
