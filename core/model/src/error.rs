//! The one error that crosses crate borders: a closed set of codes, a message, and the cause.
//!
//! Crates keep typed errors inside and turn them into this one where they meet a contract. The wire's codes are made
//! from [`Code`] at the edge only.

use std::{error::Error as StdError, fmt, io};

/// What kind of failure it was. The set and its meaning are gRPC's, which is also containerd's error set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The caller hung up or asked to stop.
    Cancelled,
    /// Nothing better is known.
    Unknown,
    /// The request itself is wrong, whatever the state of the system.
    InvalidArgument,
    /// Time ran out.
    DeadlineExceeded,
    /// The object does not exist.
    NotFound,
    /// The object exists already.
    AlreadyExists,
    /// The caller may not do this.
    PermissionDenied,
    /// A limit was reached.
    ResourceExhausted,
    /// The system is not in the state that the operation needs.
    FailedPrecondition,
    /// The operation lost a race; trying again may work.
    Aborted,
    /// A position past the end.
    OutOfRange,
    /// Not offered here.
    Unimplemented,
    /// A fault of ours.
    Internal,
    /// The other side is not there now.
    Unavailable,
    /// Stored data is damaged or gone.
    DataLoss,
    /// The caller did not prove who it is.
    Unauthenticated,
}

/// A failure: its code, what was being done to what, and why it failed.
///
/// `Display` prints the message alone; [`Error::chain`] prints the causes too.
#[derive(Debug)]
pub struct Error {
    code: Code,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $code:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new(Code::$code, message) })*
    };
}

impl Error {
    /// An error without a cause.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    constructors! {
        /// [`Code::Cancelled`].
        cancelled => Cancelled,
        /// [`Code::Unknown`].
        unknown => Unknown,
        /// [`Code::InvalidArgument`].
        invalid_argument => InvalidArgument,
        /// [`Code::DeadlineExceeded`].
        deadline_exceeded => DeadlineExceeded,
        /// [`Code::NotFound`].
        not_found => NotFound,
        /// [`Code::AlreadyExists`].
        already_exists => AlreadyExists,
        /// [`Code::PermissionDenied`].
        permission_denied => PermissionDenied,
        /// [`Code::ResourceExhausted`].
        resource_exhausted => ResourceExhausted,
        /// [`Code::FailedPrecondition`].
        failed_precondition => FailedPrecondition,
        /// [`Code::Aborted`].
        aborted => Aborted,
        /// [`Code::OutOfRange`].
        out_of_range => OutOfRange,
        /// [`Code::Unimplemented`].
        unimplemented => Unimplemented,
        /// [`Code::Internal`].
        internal => Internal,
        /// [`Code::Unavailable`].
        unavailable => Unavailable,
        /// [`Code::DataLoss`].
        data_loss => DataLoss,
        /// [`Code::Unauthenticated`].
        unauthenticated => Unauthenticated,
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An I/O failure while `doing` something; the code follows from the kind of failure.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        let code = match source.kind() {
            io::ErrorKind::NotFound => Code::NotFound,
            io::ErrorKind::AlreadyExists => Code::AlreadyExists,
            io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            io::ErrorKind::TimedOut => Code::DeadlineExceeded,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Code::Unavailable
            }
            _ => Code::Unknown,
        };
        Self::new(code, doing).with_source(source)
    }

    /// This error as the cause of a failure in `doing` something larger; the code stays.
    #[must_use]
    pub fn context(self, doing: impl Into<String>) -> Self {
        Self { code: self.code, message: doing.into(), source: Some(Box::new(self)) }
    }

    /// The kind of failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Whether the object was not there.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// Whether the object was there already.
    pub fn is_already_exists(&self) -> bool {
        self.code == Code::AlreadyExists
    }

    /// Whether the operation is not offered by whoever was asked.
    pub fn is_unimplemented(&self) -> bool {
        self.code == Code::Unimplemented
    }

    /// The message and every cause, joined by `: `, as it is shown to a caller or written to a log.
    pub fn chain(&self) -> String {
        let mut out = self.message.clone();
        let mut next = self.source();
        while let Some(error) = next {
            out.push_str(": ");
            out.push_str(&error.to_string());
            next = error.source();
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Adds what was being done to a failed result.
pub trait Context<T> {
    /// Wraps the error, if there is one, in what was being done.
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().context(doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_prints_every_cause_once() {
        let error = Error::io("reading blob", io::Error::new(io::ErrorKind::NotFound, "no such file"))
            .context("opening layer 3")
            .context("unpacking image");
        assert_eq!(error.chain(), "unpacking image: opening layer 3: reading blob: no such file");
        assert_eq!(error.to_string(), "unpacking image");
        assert_eq!(error.code(), Code::NotFound);
    }
}
