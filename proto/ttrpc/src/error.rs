//! What a client call can fail with.

use crate::frame::TooLarge;
use crate::status::{Code, Status};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a client call or stream failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The call was answered with an error, its deadline passed, or its message was too large to send.
    #[error(transparent)]
    Status(#[from] Status),
    /// The connection is gone. Whether the call took effect is unknown, unless it never left (the same error).
    #[error("ttrpc connection closed")]
    Closed(#[source] Option<Arc<io::Error>>),
    /// The stream has ended; what it ended with is read with `recv`.
    #[error("send on a stream that has ended")]
    Ended,
    /// The peer broke the protocol.
    #[error("ttrpc protocol violation: {0}")]
    Protocol(&'static str),
    /// The answer is not the expected message.
    #[error("decode {what}")]
    Decode {
        /// What was being decoded.
        what: &'static str,
        /// The cause.
        #[source]
        source: prost::DecodeError,
    },
    /// No connection could be made.
    #[error("connect to {path:?}")]
    Connect {
        /// The socket; an abstract one starts with a zero byte.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Arc<io::Error>,
    },
}

impl Error {
    /// The gRPC code that describes this error best.
    pub fn code(&self) -> Code {
        match self {
            Self::Status(status) => status.code,
            Self::Closed(_) | Self::Connect { .. } => Code::Unavailable,
            Self::Ended => Code::FailedPrecondition,
            Self::Protocol(_) | Self::Decode { .. } => Code::Internal,
        }
    }

    /// Whether the connection is gone, so that another one is needed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl From<TooLarge> for Error {
    fn from(error: TooLarge) -> Self {
        Self::Status(error.into())
    }
}
