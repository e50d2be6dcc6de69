//! What can go wrong with a mount, and which code it is for callers.

use std::{io, path::PathBuf};

/// Why a mount, an unmount or a look at the mount table failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The description can't be mounted, whatever the system's state.
    #[error("mount option {option:?}: {why}")]
    Option {
        /// The option as it was given.
        option: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A description asks for what is not done.
    #[error("{field}: {why}")]
    Refused {
        /// Which part of it.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel refused the mount.
    #[error("mounting {kind} {from:?} at {target:?}")]
    Mount {
        /// File system type.
        kind: String,
        /// Device or directory.
        from: String,
        /// Mount point.
        target: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the unmount.
    #[error("unmounting {target:?}")]
    Unmount {
        /// Mount point.
        target: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Something around the mount failed.
    #[error("{doing}")]
    Io {
        /// What was being done to what.
        doing: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A line of the mount table has another form than proc(5) says.
    #[error("mount table: {0}")]
    Table(#[from] crate::info::ParseError),
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing: doing.into(), source: source.into() }
    }

    pub(crate) fn refused(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Refused { field: field.into(), why: why.into() }
    }
}

impl From<Error> for kevel_model::Error {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Option { .. } | Error::Refused { .. } => Self::invalid_argument(message),
            Error::Table(_) => Self::internal(message),
            Error::Mount { source, .. } | Error::Unmount { source, .. } | Error::Io { source, .. } => {
                Self::io(message, source)
            }
        }
    }
}
