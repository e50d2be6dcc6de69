//! What can go wrong in the store, and which code it is for callers.

use std::io;

use kevel_model::Digest;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such blob.
    #[error("content {0} does not exist")]
    NoBlob(Digest),
    /// No such ingest.
    #[error("ingest {0:?} does not exist")]
    NoIngest(String),
    /// The blob is there already.
    #[error("content {0} exists already")]
    Exists(Digest),
    /// The reference can't name an ingest.
    #[error("reference must have 1 to {MAX_REFERENCE} bytes, not {0}")]
    Reference(usize),
    /// Somebody else is writing.
    #[error("ingest {0:?} is locked by another writer")]
    Locked(String),
    /// The ingest became a blob, or was aborted under its writer.
    #[error("ingest {0:?} is closed")]
    Closed(String),
    /// A cut beyond the end.
    #[error("ingest {reference:?} has {offset} bytes and can't be cut to {size}")]
    Truncate {
        /// The ingest.
        reference: String,
        /// Bytes it has.
        offset: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// Not as much was written as the commit says.
    #[error("ingest {reference:?} has {have} bytes, expected {want}")]
    Size {
        /// The ingest.
        reference: String,
        /// Bytes written.
        have: u64,
        /// Bytes expected.
        want: u64,
    },
    /// The data is other data.
    #[error("ingest {reference:?} has digest {have}, expected {want}")]
    Digest {
        /// The ingest.
        reference: String,
        /// Digest of what was written.
        have: Digest,
        /// Digest expected.
        want: Digest,
    },
    /// A label change, which this store has no place for.
    #[error("content {0} can't be changed: labels are kept in the metadata, not in the store")]
    Immutable(Digest),
    /// The file system failed.
    #[error("{doing}")]
    Io {
        /// What was being done to what.
        doing: String,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
    /// A task of ours died.
    #[error("{0}")]
    Internal(&'static str),
}

/// The longest reference in bytes.
pub(crate) const MAX_REFERENCE: usize = 4096;

/// A result with [`Error`].
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing: doing.into(), source: source.into() }
    }
}

impl From<Error> for kevel_model::Error {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NoBlob(_) | Error::NoIngest(_) => Self::not_found(message),
            Error::Exists(_) => Self::already_exists(message),
            Error::Reference(_) => Self::invalid_argument(message),
            Error::Locked(_) => Self::unavailable(message),
            Error::Truncate { .. } => Self::out_of_range(message),
            Error::Closed(_) | Error::Size { .. } | Error::Digest { .. } | Error::Immutable(_) => {
                Self::failed_precondition(message)
            }
            Error::Io { source, .. } => Self::io(message, source),
            Error::Internal(_) => Self::internal(message),
        }
    }
}
