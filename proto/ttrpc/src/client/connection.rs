//! The task behind a client: writes queued frames and hands received ones to their calls.

use super::calls::{Calls, Slot};
use crate::error::Error;
use crate::frame::{Decoded, Flags, Frame, Kind, TooLarge};
use crate::message::Response;
use crate::queue::{Receiver, Refused, Sender};
use crate::reader::Reader;
use crate::status::Status;
use crate::writer;
use bytes::Bytes;
use prost::Message;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves the connection until the peer closes it, it breaks, or every client is gone; then fails every call.
pub(super) async fn run<IO>(io: IO, frames: Receiver<Bytes>, calls: Arc<Calls>, stall: Duration)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let ending = Ending(calls);
    let calls = &ending.0;
    let (read, write) = tokio::io::split(io);
    let reading = pin!(read_frames(read, calls, stall));
    let writing = pin!(writer::run(write, frames));
    let end = tokio::select! {
        end = reading => end,
        end = writing => end,
        () = calls.closed() => Ok(()),
    };
    if let Err(error) = &end {
        tracing::debug!(%error, "ttrpc connection broke");
    }
    calls.close(end.err());
}

/// Closes the calls also when the runtime drops the task.
struct Ending(Arc<Calls>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.close(None);
    }
}

async fn read_frames<R: AsyncRead + Unpin>(io: R, calls: &Calls, stall: Duration) -> io::Result<()> {
    let mut reader = Reader::new(io);
    while let Some(decoded) = reader.next().await? {
        match decoded {
            Decoded::Frame(frame) => deliver(frame, calls, stall).await,
            Decoded::Oversize(header) => {
                if let Some(slot) = calls.take(header.stream) {
                    slot.fail(TooLarge { length: header.length as usize }.into());
                }
            }
        }
    }
    Ok(())
}

async fn deliver(frame: Frame, calls: &Calls, stall: Duration) {
    let stream = frame.header.stream;
    if let Some(messages) = calls.queue(stream) {
        return deliver_message(frame, &messages, calls, stall).await;
    }
    let Some(slot) = calls.take(stream) else {
        return tracing::trace!(stream, "frame for a call that is over");
    };
    match slot {
        Slot::Unary(answer) if frame.header.kind == Kind::Response => drop(answer.send(response(frame.data))),
        slot => slot.fail(Error::Protocol("a unary call was answered with something else than a response")),
    }
}

async fn deliver_message(frame: Frame, messages: &Sender<Result<Bytes, Error>>, calls: &Calls, stall: Duration) {
    let stream = frame.header.stream;
    let (message, last) = match frame.header.kind {
        Kind::Data => {
            let last = frame.header.flags.contains(Flags::REMOTE_CLOSED);
            let message = (!frame.header.flags.contains(Flags::NO_DATA)).then_some(frame.data);
            (Ok(message), last)
        }
        Kind::Response => (response(frame.data).map(Some), true),
        Kind::Request | Kind::Other(_) => return, // nothing that a server sends today
    };
    let failure = match message {
        Err(error) => Some(error),
        Ok(None) => None,
        Ok(Some(message)) => match messages.send_within(stall, message.len(), Ok(message)).await {
            Ok(()) | Err(Refused::Closed) => None, // when nobody receives, the end still has to be noted
            Err(Refused::Full) => Some(Status::exhausted("stream messages are not being received").into()),
        },
    };
    match failure {
        Some(error) => {
            if let Some(slot) = calls.take(stream) {
                slot.fail(error);
            }
        }
        None if last => drop(calls.take(stream)),
        None => {}
    }
}

/// The payload of a response, or the error in it.
fn response(data: Bytes) -> Result<Bytes, Error> {
    let response = Response::decode(data).map_err(|source| Error::Decode { what: "response envelope", source })?;
    match response.status {
        Some(status) if status.code != 0 => Err(Status::from(status).into()),
        _ => Ok(response.payload),
    }
}
