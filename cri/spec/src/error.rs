//! Why a spec cannot be made.

use thiserror::Error;

/// A request, a configuration or a node that no spec can be made for. Every variant names the field, spelt as CRI does.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The request is wrong by itself.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field, such as `mounts[2].container_path`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request is fine, but this node or handler cannot do it.
    #[error("{field}: {reason}")]
    Unsupported {
        /// The field that asked for it.
        field: String,
        /// What is missing.
        reason: String,
    },
    /// The spec to start from, or to change, does not have the form of a spec.
    #[error("runtime spec: {path} is not {expected}")]
    Shape {
        /// The member, such as `linux/resources`.
        path: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) fn invalid<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T> {
    Err(Error::Invalid { field: field.into(), reason: reason.into() })
}

pub(crate) fn unsupported<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T> {
    Err(Error::Unsupported { field: field.into(), reason: reason.into() })
}

impl From<Error> for kevel_model::Error {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Invalid { .. } => kevel_model::Code::InvalidArgument,
            Error::Unsupported { .. } | Error::Shape { .. } => kevel_model::Code::FailedPrecondition,
        };
        Self::new(code, "making the runtime spec").with_source(error)
    }
}
