//! Why a shim cannot do what its command line says.

use std::{io, path::PathBuf};

/// Why an action of a shim failed. The message goes to standard error, where the daemon reads it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// What the daemon said on standard input is wrong.
    #[error("parameters of start: {0}")]
    Parameters(String),
    /// A file or a socket.
    #[error("{doing} {path:?}")]
    File {
        /// What was being done to it.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something else of the operating system.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The plugins cannot start.
    #[error("starting the plugins of the shim")]
    Graph(#[from] kevel_plugin::GraphError),
    /// A plugin failed, or none serves anything.
    #[error("{0}")]
    Plugin(String),
    /// What the author of a shim has to say.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// A failure of the operating system.
    pub fn system(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { doing: doing.into(), source: source.into() }
    }

    /// A failure with a file.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::File { doing, path: path.into(), source: source.into() }
    }

    /// The message with its causes, joined by `: `.
    pub fn chain(&self) -> String {
        kevel_plugin::chain(self)
    }
}
