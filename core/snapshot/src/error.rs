//! What can go wrong in a snapshotter, and which code it is for callers.

use std::io;

/// Why a snapshotter refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or name that can't be stored.
    #[error("{field} must have 1 to {MAX_NAME} bytes, not {length}")]
    Name {
        /// Which argument.
        field: &'static str,
        /// Its length.
        length: usize,
    },
    /// Nothing has this key or name.
    #[error("snapshot {0:?} does not exist")]
    NotFound(String),
    /// The key or name is taken.
    #[error("snapshot {0:?} exists already")]
    Exists(String),
    /// The parent is no committed snapshot.
    #[error("parent {0:?} is not a committed snapshot")]
    Parent(String),
    /// A commit on another parent than the snapshot was prepared on.
    #[error("snapshot {key:?} has parent {have:?} and can't be committed on {want:?}")]
    OtherParent {
        /// The snapshot.
        key: String,
        /// Its parent.
        have: String,
        /// The parent asked for.
        want: String,
    },
    /// Mounts or a commit of something that is not active.
    #[error("snapshot {0:?} is not active")]
    NotActive(String),
    /// Removal of a snapshot that others are built on.
    #[error("snapshot {0:?} has children")]
    Children(String),
    /// A label that can't be understood.
    #[error("label {label:?}: {value:?} is not a list of container-id:host-id:size with id 0 in it")]
    Mapping {
        /// The label.
        label: &'static str,
        /// Its value.
        value: String,
    },
    /// A directory that belongs to another program.
    #[error("{0} holds snapshots that its database does not know; they may belong to another runtime")]
    Foreign(String),
    /// The file system or kernel can't do it.
    #[error("{0}")]
    Unsupported(String),
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

/// The longest key or name in bytes.
pub(crate) const MAX_NAME: usize = 4096;

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
            Error::Name { .. } | Error::Parent(_) | Error::OtherParent { .. } | Error::Mapping { .. } => {
                Self::invalid_argument(message)
            }
            Error::NotFound(_) => Self::not_found(message),
            Error::Exists(_) => Self::already_exists(message),
            Error::NotActive(_) | Error::Children(_) | Error::Foreign(_) => Self::failed_precondition(message),
            Error::Unsupported(_) => Self::unimplemented(message),
            Error::Io { source, .. } => Self::io(message, source),
            Error::Internal(_) => Self::internal(message),
        }
    }
}
