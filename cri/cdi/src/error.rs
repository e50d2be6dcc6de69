//! Why a device is not injected.

use std::path::PathBuf;

use thiserror::Error;

/// Every variant names the device, or the file in which the trouble is.
#[derive(Debug, Error)]
pub enum Error {
    /// What a request asks for is no qualified name.
    #[error("CDI device {device:?}: {reason}")]
    Name {
        /// As the request spells it.
        device: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No spec on the node has the device.
    #[error("CDI device {device}: unknown; {known}")]
    Unknown {
        /// The qualified name.
        device: String,
        /// What there is, or what is wrong with files that might have had it.
        known: String,
    },
    /// Two specs of the same directory describe the device.
    #[error("CDI device {device}: in both {first:?} and {second:?}")]
    Conflict {
        /// The qualified name.
        device: String,
        /// A file.
        first: PathBuf,
        /// Another one in the same directory.
        second: PathBuf,
    },
    /// The spec is fine, but its device cannot be made here.
    #[error("CDI device {device}: {reason}")]
    Device {
        /// The qualified name.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// The runtime spec to change does not have the form of one.
    #[error("runtime spec: {path} is not {expected}")]
    Shape {
        /// The member, such as `linux/devices`.
        path: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A directory of specs can't be read.
    #[error("reading CDI specs in {dir:?}")]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// A result with [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Error> for kevel_model::Error {
    fn from(error: Error) -> Self {
        use kevel_model::Code;
        let code = match &error {
            Error::Name { .. } => Code::InvalidArgument,
            Error::Unknown { .. } | Error::Conflict { .. } | Error::Device { .. } => Code::FailedPrecondition,
            Error::Shape { .. } | Error::Dir { .. } => Code::Internal,
        };
        let message = error.to_string();
        match error {
            Error::Dir { source, .. } => Self::io(message, source),
            _ => Self::new(code, message),
        }
    }
}
