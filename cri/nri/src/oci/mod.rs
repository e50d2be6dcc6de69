//! Between NRI's messages and OCI runtime specs as JSON documents, whose members that nobody here knows survive. Pure.

mod adjust;
mod document;
mod limits;
mod read;
mod security;
#[cfg(test)]
mod tests;

pub use adjust::{Inject, adjust};
pub use limits::{limits, set_limits};
pub use read::{container, sandbox};

/// What of an adjustment depends on the node.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether limits on swap work.
    pub swap: bool,
    /// Whether huge page limits are applied; they are left out otherwise.
    pub hugepages: bool,
    /// Whether cgroups are of version 2.
    pub unified: bool,
}

/// What cannot be put into a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field has a value that means nothing.
    #[error("{field}: {reason}")]
    Field {
        /// The field.
        field: String,
        /// Why not.
        reason: String,
    },
    /// The spec is none.
    #[error("the spec's {path} is not {expected}")]
    Shape {
        /// Where.
        path: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) fn refuse<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T> {
    Err(Error::Field { field: field.into(), reason: reason.into() })
}
