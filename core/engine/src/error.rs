//! What can go wrong, always with the field of the spec (or of the request) that it is about.

use std::io;

/// An error of the engine. Whatever it is, nothing of the container is left behind by the call that returned it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The document is not a spec.
    #[error("parse the spec at {field}")]
    Parse {
        /// Path of the value, `process.args[1]`.
        field: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The field's value makes no sense, or is refused for safety.
    #[error("{field}: {reason}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The field asks for what the engine or this machine does not have.
    #[error("{field}: {reason} (not supported)")]
    Unsupported {
        /// Path of the field.
        field: String,
        /// What is missing.
        reason: String,
    },
    /// The kernel refused something that the field asked for.
    #[error("{field}: {doing}")]
    Failed {
        /// Path of the field.
        field: String,
        /// What was being done.
        doing: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A hook failed.
    #[error("{field}: hook {path} {outcome}")]
    Hook {
        /// Which one, `hooks.createRuntime[0]`.
        field: String,
        /// Its program.
        path: String,
        /// How it ended.
        outcome: String,
    },
    /// The container's process ended before it ran its program, without a word.
    #[error("the container's process ended early: {status}")]
    Died {
        /// How it ended.
        status: String,
    },
    /// The container is not in a state that allows the call.
    #[error("container is {state}, cannot {verb}")]
    State {
        /// Its state.
        state: &'static str,
        /// What was asked.
        verb: &'static str,
    },
    /// Something that no field is to blame for.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// What the engine's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn failed(field: impl Into<String>, doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Failed { field: field.into(), doing: doing.into(), source: source.into() }
    }

    pub(crate) fn system(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { doing: doing.into(), source: source.into() }
    }

    /// The field of the spec that the error is about.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Parse { field, .. }
            | Self::Invalid { field, .. }
            | Self::Unsupported { field, .. }
            | Self::Failed { field, .. }
            | Self::Hook { field, .. } => Some(field),
            Self::Died { .. } | Self::State { .. } | Self::System { .. } => None,
        }
    }
}
