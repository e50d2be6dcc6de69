//! From the one error to a gRPC status, and from items to a stream of answers.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream};
use kevel_model::{Code, Error};
use tonic::{Code as Grpc, Status};

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The status of an error: its code, and its message with the causes.
pub(crate) fn status(error: &Error) -> Status {
    let code = match error.code() {
        Code::Cancelled => Grpc::Cancelled,
        Code::Unknown => Grpc::Unknown,
        Code::InvalidArgument => Grpc::InvalidArgument,
        Code::DeadlineExceeded => Grpc::DeadlineExceeded,
        Code::NotFound => Grpc::NotFound,
        Code::AlreadyExists => Grpc::AlreadyExists,
        Code::PermissionDenied => Grpc::PermissionDenied,
        Code::ResourceExhausted => Grpc::ResourceExhausted,
        Code::FailedPrecondition => Grpc::FailedPrecondition,
        Code::Aborted => Grpc::Aborted,
        Code::OutOfRange => Grpc::OutOfRange,
        Code::Unimplemented => Grpc::Unimplemented,
        Code::Internal => Grpc::Internal,
        Code::Unavailable => Grpc::Unavailable,
        Code::DataLoss => Grpc::DataLoss,
        Code::Unauthenticated => Grpc::Unauthenticated,
    };
    Status::new(code, bounded(error.chain()))
}

/// The most of a message that is sent, in bytes: it travels in a header, of which clients take 16 KiB, and may be written
/// with three bytes for one.
const MESSAGE: usize = 4096;

/// A message that may quote what a stranger wrote, without its middle when it is long: the beginning says which field it is
/// about, the end why.
fn bounded(message: String) -> String {
    if message.len() <= MESSAGE {
        return message;
    }
    let (head, tail) =
        (message.floor_char_boundary(MESSAGE / 2), message.ceil_char_boundary(message.len() - MESSAGE / 2));
    format!("{} [...] {}", &message[..head], &message[tail..])
}

/// Items in chunks, so that a message stays small whatever the number of items.
pub(crate) fn chunks<I: Send + 'static, T: 'static>(
    items: Vec<I>,
    answer: impl Fn(Vec<I>) -> T + Send + 'static,
) -> Answers<T> {
    const CHUNK: usize = 64;
    Box::pin(stream::iter(items).chunks(CHUNK).map(move |items| Ok(answer(items))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_lose_their_middle() {
        let short = status(&Error::invalid_argument("config.x: wrong"));
        assert_eq!((short.code(), short.message()), (Grpc::InvalidArgument, "config.x: wrong"));
        let long = status(&Error::invalid_argument(format!("config.x: {:?} is wrong", "\u{fc}".repeat(9000))));
        assert!(long.message().len() < MESSAGE + 16, "{}", long.message().len());
        assert!(long.message().starts_with("config.x: ") && long.message().ends_with(" is wrong"));
    }
}
