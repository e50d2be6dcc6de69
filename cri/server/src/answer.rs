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
    Status::new(code, error.chain())
}

/// Items in chunks, so that a message stays small whatever the number of items.
pub(crate) fn chunks<I: Send + 'static, T: 'static>(
    items: Vec<I>,
    answer: impl Fn(Vec<I>) -> T + Send + 'static,
) -> Answers<T> {
    const CHUNK: usize = 64;
    Box::pin(stream::iter(items).chunks(CHUNK).map(move |items| Ok(answer(items))))
}
