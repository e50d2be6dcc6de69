//! A stream of the server: what a streaming handler receives from and sends to.

use crate::frame::{self, Flags, Kind};
use crate::queue;
use crate::status::Status;
use bytes::Bytes;
use prost::Message;

/// A stream that a handler serves.
pub struct ServerStream {
    incoming: Incoming,
    outgoing: Outgoing,
}

/// The messages of the client.
pub struct Incoming {
    pub(super) messages: queue::Receiver<Result<Bytes, Status>>,
}

/// The way back to the client.
#[derive(Clone)]
pub struct Outgoing {
    pub(super) stream: u32,
    pub(super) frames: queue::Sender<Bytes>,
}

impl ServerStream {
    pub(super) fn new(incoming: Incoming, outgoing: Outgoing) -> Self {
        Self { incoming, outgoing }
    }

    /// See [`Incoming::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn recv<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        self.incoming.recv().await
    }

    /// See [`Outgoing::send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), Status> {
        self.outgoing.send(message).await
    }

    /// The two directions, for receiving and sending at the same time. Both end with the handler: what is sent after it
    /// returned is not part of the stream.
    pub fn split(self) -> (Incoming, Outgoing) {
        (self.incoming, self.outgoing)
    }
}

impl Incoming {
    /// The next message of the client; `None` when it has sent its last. Cancel safe.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the connection is lost, `InvalidArgument` when the bytes are not that message.
    pub async fn recv<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        match self.messages.recv().await {
            None => Ok(None),
            Some(message) => super::decode(message?).map(Some),
        }
    }
}

impl Outgoing {
    /// Sends a message. Returns when it is queued; waits while the connection's queue is full. Cancel safe.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` when the message is too large (the stream goes on), `Unavailable` when the connection is
    /// lost.
    pub async fn send<M: Message>(&self, message: &M) -> Result<(), Status> {
        let frame = frame::encode(self.stream, Kind::Data, Flags::NONE, message)?.freeze();
        let permit = self.frames.reserve(frame.len()).await.map_err(|_| Status::unavailable("connection closed"))?;
        permit.send(frame);
        Ok(())
    }
}
