//! The task of one call: runs the handler within its deadline, survives its panic, answers once.

use super::service::{Context, Ending, Service};
use super::stream::{Incoming, Outgoing, ServerStream};
use crate::frame::{self, Flags, Kind};
use crate::message::Response;
use crate::queue::{Closed, Sender};
use crate::status::{Code, Status};
use bytes::Bytes;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::oneshot;

/// One call.
pub(super) struct Handler {
    pub(super) service: Arc<dyn Service>,
    pub(super) method: String,
    pub(super) context: Context,
    pub(super) stream: u32,
    pub(super) frames: Sender<Bytes>,
}

impl Handler {
    /// Runs a unary call and answers it. Returns the stream id.
    pub(super) async fn call(self, payload: Bytes) -> u32 {
        let deadline = self.context.deadline;
        let work = async { self.service.call(&self.method, payload, self.context).await };
        let result = guard(deadline, work).await;
        let _ = respond(&self.frames, self.stream, result).await; // the connection is gone: nobody to answer
        self.stream
    }

    /// Runs a stream and ends it: with what the handler returns, or with what fails it first.
    pub(super) async fn stream(self, incoming: Incoming, failed: oneshot::Receiver<Status>) -> u32 {
        let outgoing = Outgoing { stream: self.stream, frames: self.frames.clone() };
        let deadline = self.context.deadline;
        let stream = ServerStream::new(incoming, outgoing);
        let work = async { self.service.stream(&self.method, stream, self.context).await };
        let result = tokio::select! {
            biased;
            Ok(status) = failed => Err(status),
            result = guard(deadline, work) => result,
        };
        let _ = match result {
            Ok(Ending::Closed) => queue(&self.frames, frame::end(self.stream)).await,
            Ok(Ending::Answer(payload)) => respond(&self.frames, self.stream, Ok(payload)).await,
            Err(status) => respond(&self.frames, self.stream, Err(status)).await,
        };
        self.stream
    }
}

/// Runs `work` until the deadline; a panic becomes an error.
async fn guard<T>(
    deadline: Option<tokio::time::Instant>,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let work = AssertUnwindSafe(work).catch_unwind();
    let caught = match deadline {
        None => work.await,
        Some(at) => match tokio::time::timeout_at(at, work).await {
            Ok(caught) => caught,
            Err(_) => return Err(Status::deadline()),
        },
    };
    caught.unwrap_or_else(|_| {
        tracing::error!("ttrpc handler panicked");
        Err(Status::new(Code::Internal, "the handler panicked"))
    })
}

/// Queues a response frame. An answer that no frame can carry is replaced by an error that says so.
pub(super) async fn respond(frames: &Sender<Bytes>, stream: u32, result: Result<Bytes, Status>) -> Result<(), Closed> {
    let encode = |result| {
        let response = match result {
            Ok(payload) => Response { status: None, payload },
            Err(status) => Response { status: Some(Status::into(status)), payload: Bytes::new() },
        };
        frame::encode(stream, Kind::Response, Flags::NONE, &response)
    };
    let frame = match encode(result) {
        Ok(frame) => frame,
        Err(error) => match encode(Err(error.into())) {
            Ok(frame) => frame,
            Err(_) => return Ok(()), // unreachable: that status is a line of text
        },
    };
    queue(frames, frame.freeze()).await
}

async fn queue(frames: &Sender<Bytes>, frame: Bytes) -> Result<(), Closed> {
    frames.reserve(frame.len()).await?.send(frame);
    Ok(())
}
