//! Errors and gRPC statuses: codes one to one, the message with every cause.

use kevel_model::{Code, Error};
use tonic::Status;

/// Codes of both worlds; what is missing in either does not exist.
const CODES: [(Code, tonic::Code); 16] = [
    (Code::Cancelled, tonic::Code::Cancelled),
    (Code::Unknown, tonic::Code::Unknown),
    (Code::InvalidArgument, tonic::Code::InvalidArgument),
    (Code::DeadlineExceeded, tonic::Code::DeadlineExceeded),
    (Code::NotFound, tonic::Code::NotFound),
    (Code::AlreadyExists, tonic::Code::AlreadyExists),
    (Code::PermissionDenied, tonic::Code::PermissionDenied),
    (Code::ResourceExhausted, tonic::Code::ResourceExhausted),
    (Code::FailedPrecondition, tonic::Code::FailedPrecondition),
    (Code::Aborted, tonic::Code::Aborted),
    (Code::OutOfRange, tonic::Code::OutOfRange),
    (Code::Unimplemented, tonic::Code::Unimplemented),
    (Code::Internal, tonic::Code::Internal),
    (Code::Unavailable, tonic::Code::Unavailable),
    (Code::DataLoss, tonic::Code::DataLoss),
    (Code::Unauthenticated, tonic::Code::Unauthenticated),
];

/// The longest message sent, in bytes: gRPC carries it in a header, and clients refuse long ones.
const MAX_MESSAGE: usize = 4096;

/// The wire's code for one of ours.
pub fn code_wire(code: Code) -> tonic::Code {
    CODES.iter().find(|(ours, _)| *ours == code).map_or(tonic::Code::Unknown, |(_, wire)| *wire)
}

/// Our code for one of the wire's.
pub fn code_read(code: tonic::Code) -> Code {
    CODES.iter().find(|(_, wire)| *wire == code).map_or(Code::Unknown, |(ours, _)| *ours)
}

/// The status that a caller is told.
#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
pub fn status(error: Error) -> Status {
    let mut message = error.chain();
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    Status::new(code_wire(error.code()), message)
}

/// The error that a backend's status is. A status that no backend sent, because the connection broke or was never made,
/// has a cause: the backend is unavailable, and the message says why.
#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
pub fn error(status: Status) -> Error {
    let broken = matches!(status.code(), tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Unavailable);
    match std::error::Error::source(&status) {
        Some(cause) if broken => Error::unavailable(causes(cause)),
        _ => Error::new(code_read(status.code()), status.message()),
    }
}

/// An error with everything below it, each said once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !said.iter().any(|before| before.contains(&text)) {
            said.push(text);
        }
        next = error.source();
    }
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for (code, wire) in CODES {
            let there = status(Error::new(code, "cause").context("doing"));
            assert_eq!((there.code(), there.message()), (wire, "doing: cause"));
            let back = error(there);
            assert_eq!((back.code(), back.chain().as_str()), (code, "doing: cause"));
        }
        assert_eq!(code_read(tonic::Code::Ok), Code::Unknown);
    }

    #[test]
    fn a_broken_connection_is_said_to_be_one() {
        let cause = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
        let broken = error(Status::from_error(Box::new(cause)));
        assert_eq!((broken.code(), broken.chain().as_str()), (Code::Unavailable, "reset by peer"));
        let said = error(Status::unknown("a backend's own word"));
        assert_eq!((said.code(), said.chain().as_str()), (Code::Unknown, "a backend's own word"));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let there = status(Error::unknown(format!("x{}", "é".repeat(4096))));
        assert_eq!(there.message().len(), 4095);
    }
}
