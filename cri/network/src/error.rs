//! What can go wrong, and which kind of failure it is for the caller.

use crate::conf::ConfigError;
use crate::field::FieldError;
use crate::invoke::{PluginError, Verb};
use std::fmt;
use std::path::PathBuf;

/// A failure of a network operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request cannot be right; nothing was changed.
    #[error("invalid request")]
    Invalid(#[from] FieldError),
    /// No network can serve pods at this time.
    #[error("network not ready: {reason}")]
    NotReady {
        /// Why, in words for an operator.
        reason: String,
    },
    /// A configuration is not usable.
    #[error("reading network configuration {origin}")]
    Config {
        /// The file, or what else the configuration came from.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: Box<ConfigError>,
    },
    /// A plugin failed.
    #[error("{verb} of network {network} by plugin {plugin}")]
    Plugin {
        /// The operation.
        verb: Verb,
        /// The network's name.
        network: String,
        /// The plugin's type.
        plugin: String,
        /// What happened.
        #[source]
        source: Box<PluginError>,
    },
    /// ADD failed, and so did the DEL that was to undo it. The attachment's record is kept, DEL can be retried.
    #[error("{add}; undoing it failed too: {undo}", add = Chain(.add), undo = Chain(.undo))]
    Undo {
        /// Why ADD failed.
        add: Box<Error>,
        /// Why DEL failed.
        undo: Box<Error>,
    },
    /// The plugins succeeded, but gave the pod no address.
    #[error("network {network} gave {container} no address on {interface}")]
    NoAddress {
        /// The network's name.
        network: String,
        /// The pod's id.
        container: String,
        /// The interface that should have one.
        interface: String,
    },
    /// CHECK without a finished ADD.
    #[error("{container} is not attached to network {network}")]
    NotAttached {
        /// The network's name.
        network: String,
        /// The pod's id.
        container: String,
    },
    /// Keeping or reading attachment records.
    #[error("{action} attachment record {path}", path = path.display())]
    Cache {
        /// What was being done.
        action: &'static str,
        /// The record or its directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A network namespace.
    #[error("{action} network namespace {path}", path = path.display())]
    Netns {
        /// What was being done.
        action: &'static str,
        /// The namespace's file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Watching the configuration directory.
    #[error("watching network configuration directory {path}", path = path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Several independent failures; the operation went on past each.
    #[error("{}", Joined(.0))]
    Many(Vec<Error>),
}

/// What a caller should make of an [`Error`]; the names are those of gRPC codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong, a retry will not help.
    InvalidArgument,
    /// Something that must exist first does not.
    FailedPrecondition,
    /// No network now, or the plugin says: later.
    Unavailable,
    /// A plugin did not answer in time.
    DeadlineExceeded,
    /// Everything else.
    Internal,
}

impl Error {
    /// The kind of failure; of several, the first one's.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidArgument,
            Self::NotReady { .. } => Kind::Unavailable,
            Self::NotAttached { .. } => Kind::FailedPrecondition,
            Self::Plugin { source, .. } => source.kind(),
            Self::Undo { add, .. } => add.kind(),
            Self::Many(errors) => errors.first().map_or(Kind::Internal, Self::kind),
            _ => Kind::Internal,
        }
    }

    /// The error with its causes on one line, for logs and for the kubelet.
    pub fn chain(&self) -> String {
        Chain(self).to_string()
    }

    /// Nothing, the only error, or all of them.
    pub(crate) fn join(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Many(errors)),
        }
    }
}

/// Prints an error and its causes, separated by colons.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

struct Joined<'a>(&'a [Error]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}", Chain(error))?;
        }
        Ok(())
    }
}
