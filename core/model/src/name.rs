//! Names of namespaces, containers, sandboxes and leases, and what may be one.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::Error;

/// The longest identifier.
const MAX_LENGTH: usize = 76;

/// Why a string can't be an identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// There is nothing.
    #[error("identifier must not be empty")]
    Empty,
    /// Longer than containerd takes.
    #[error("identifier {0:?} is longer than {MAX_LENGTH} characters")]
    TooLong(String),
    /// Other characters than letters and digits, with single `.`, `_` or `-` between them.
    #[error("identifier {0:?} must be letters and digits, with single '.', '_' or '-' between them")]
    Syntax(String),
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Whether `name` may be an identifier: letters and digits, in groups joined by single `.`, `_` or `-` (runs of `_` or `-` are
/// refused), at most 76 characters. Such a name is safe as a file name.
pub fn check_identifier(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_LENGTH {
        return Err(NameError::TooLong(name.chars().take(MAX_LENGTH).collect()));
    }
    let groups = name.split(['.', '_', '-']);
    for group in groups {
        if group.is_empty() || !group.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(NameError::Syntax(name.to_owned()));
        }
    }
    Ok(())
}

/// A tenant of the core services; objects of different namespaces don't see each other. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// A namespace of this name, if it may be one.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check_identifier(name)?;
        Ok(Self(name.into()))
    }

    /// The namespace that Kubernetes' objects live in.
    pub fn k8s() -> Self {
        Self("k8s.io".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Namespace {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl From<Namespace> for String {
    fn from(namespace: Namespace) -> Self {
        namespace.0.as_ref().to_owned()
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for good in ["default", "k8s.io", "a-b_c.d", "A0"] {
            assert_eq!(check_identifier(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a..b", "-a", "a-", "a b", "ä", &"x".repeat(77)] {
            assert!(check_identifier(bad).is_err(), "{bad}");
        }
    }
}
