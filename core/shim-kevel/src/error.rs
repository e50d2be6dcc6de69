//! Why a task could not do what it was asked to, and as what the daemon is told so.

use std::{io, path::PathBuf};

use kevel_ttrpc::{Code, Status};

/// A failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is no such container or process, or it has ended.
    #[error("{0}: not found")]
    NotFound(String),
    /// There is one of that name already.
    #[error("{0}: already exists")]
    Exists(String),
    /// Not in this state.
    #[error("{0}")]
    State(String),
    /// The OCI runtime failed.
    #[error("OCI runtime {verb} failed: {said}")]
    Runtime {
        /// What it was to do.
        verb: &'static str,
        /// What it said, or how it ended.
        said: String,
    },
    /// The operating system.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file system.
    #[error("{doing} {path:?}")]
    Mount {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: kevel_mount::Error,
    },
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] kevel_shim::Error),
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn system(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { doing: doing.into(), source: source.into() }
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::Exists(_) => Code::AlreadyExists,
            Self::State(_) => Code::FailedPrecondition,
            Self::Runtime { .. } | Self::System { .. } | Self::Mount { .. } | Self::Bundle(_) => Code::Unknown,
        }
    }

    pub(crate) fn chain(&self) -> String {
        kevel_plugin::chain(self)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.chain())
    }
}
