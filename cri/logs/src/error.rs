//! What can go wrong with streams and logs.

use std::{io, path::PathBuf};

use thiserror::Error;

/// A failure with a pipe or a log file.
#[derive(Debug, Error)]
pub enum Error {
    /// A pipe could not be made, opened or removed.
    #[error("{doing} the pipe {}", path.display())]
    Fifo {
        /// The verb.
        doing: &'static str,
        /// The pipe.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A log file could not be opened.
    #[error("{doing} the container log {}", path.display())]
    Log {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The container was made without standard input, or it was closed.
    #[error("the container's standard input is not open")]
    NoStdin,
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Error> for kevel_model::Error {
    fn from(error: Error) -> Self {
        match &error {
            Error::NoStdin => Self::failed_precondition("writing to a container").with_source(error),
            Error::Fifo { source, .. } | Error::Log { source, .. } => {
                let code = Self::io("", io::Error::from(source.kind())).code();
                Self::new(code, "connecting a container's streams").with_source(error)
            }
        }
    }
}
