//! What can go wrong between the daemon and a shim, and which code each failure has.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use kevel_model::Code;

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something with a shim failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime's name can't be turned into the name of a binary.
    #[error("runtime name {name:?}: {reason}")]
    RuntimeName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no such binary.
    #[error("runtime {name:?}: no shim {binary:?} in the search path, and none beside the daemon")]
    NoBinary {
        /// The runtime's name.
        name: String,
        /// What was looked for.
        binary: String,
    },
    /// The binary could not be run.
    #[error("running shim {binary:?} {action}")]
    Spawn {
        /// The binary.
        binary: PathBuf,
        /// What it was to do.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The binary took too long and was killed.
    #[error("shim {binary:?} {action} did not end within {limit:?}")]
    Slow {
        /// The binary.
        binary: PathBuf,
        /// What it was to do.
        action: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The binary failed.
    #[error("shim {binary:?} {action} failed ({status}): {output}")]
    Failed {
        /// The binary.
        binary: PathBuf,
        /// What it was to do.
        action: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        output: String,
    },
    /// The binary's answer can't be understood.
    #[error("answer of shim {binary:?} to {action}")]
    Reply {
        /// The binary.
        binary: PathBuf,
        /// What it was to do.
        action: &'static str,
        /// What is wrong with the answer.
        #[source]
        source: ReplyError,
    },
    /// The shim speaks or lives in a way that is not offered here.
    #[error("shim at {address:?}: {what}")]
    Unsupported {
        /// Where.
        address: String,
        /// What is not offered.
        what: String,
    },
    /// An address that is none.
    #[error("shim address {address:?}: {reason}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody answers at the address.
    #[error("connecting to the shim at {address:?}")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A call failed, or the connection broke.
    #[error("{method} of {id}")]
    Call {
        /// What was called.
        method: &'static str,
        /// For which container.
        id: String,
        /// What the shim, or the connection, said.
        #[source]
        source: kevel_ttrpc::Error,
    },
    /// The shim died; what it left has been cleaned up.
    #[error("the shim of {id} is gone")]
    Gone {
        /// Of which container.
        id: String,
    },
    /// The shim has not answered for some time; nobody is kept waiting for it.
    #[error("{method} of {id}: its shim has not answered for {silent:?}; it is asked again soon")]
    Silent {
        /// What was to be called.
        method: &'static str,
        /// For which container.
        id: String,
        /// For how long.
        silent: Duration,
    },
    /// SIGKILL did not end a container, and the shim is not to blame.
    #[error("container {id} has a process that the kernel does not end; what it waits for hangs")]
    Unkillable {
        /// The container.
        id: String,
    },
    /// A bundle's file or directory.
    #[error("{doing} {path:?}")]
    Bundle {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The mounts in a bundle.
    #[error("unmounting the root file system of bundle {path:?}")]
    Unmount {
        /// The bundle.
        path: PathBuf,
        /// Why not.
        #[source]
        source: kevel_mount::Error,
    },
    /// A task or sandbox of that id runs already.
    #[error("{what} {id} exists already in namespace {namespace}")]
    Exists {
        /// "task" or "sandbox".
        what: &'static str,
        /// Its id.
        id: String,
        /// Its namespace.
        namespace: String,
    },
    /// There is no such task or sandbox.
    #[error("no running {what} {id} in namespace {namespace}")]
    NotFound {
        /// "task" or "sandbox".
        what: &'static str,
        /// The id.
        id: String,
        /// The namespace.
        namespace: String,
    },
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Something that is not offered here.
    #[error("{0}")]
    Unimplemented(String),
}

/// Why a shim's answer can't be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// It said nothing.
    #[error("it is empty")]
    Empty,
    /// It said more than anyone should.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// It speaks a version from the future.
    #[error("it offers version {0} of the task API; versions 2 and 3 are known")]
    Version(i32),
    /// It speaks a protocol that nobody knows.
    #[error("it offers protocol {0:?}; ttrpc and grpc are known")]
    Protocol(String),
    /// It is neither a message, nor JSON, nor an address.
    #[error("it is neither a protobuf message, nor JSON, nor an address: {0:?}")]
    Garbage(String),
}

impl Error {
    /// Whether the connection to the shim is lost.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.is_closed())
    }

    /// The code that describes this error best.
    pub fn code(&self) -> Code {
        match self {
            Self::RuntimeName { .. } | Self::Invalid(_) => Code::InvalidArgument,
            Self::NoBinary { .. } | Self::NotFound { .. } | Self::Gone { .. } => Code::NotFound,
            Self::Slow { .. } | Self::Unkillable { .. } => Code::DeadlineExceeded,
            Self::Spawn { .. } | Self::Failed { .. } | Self::Bundle { .. } | Self::Unmount { .. } => Code::Unknown,
            Self::Reply { .. } | Self::Address { .. } => Code::Internal,
            Self::Unsupported { .. } | Self::Unimplemented(_) => Code::Unimplemented,
            Self::Connect { .. } | Self::Silent { .. } => Code::Unavailable,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Call { source, .. } => code(source.code()),
        }
    }
}

impl From<Error> for kevel_model::Error {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string()).with_source_of(error)
    }
}

/// Keeps the causes of an error whose own words are already the message.
trait WithSourceOf {
    fn with_source_of(self, error: Error) -> Self;
}

impl WithSourceOf for kevel_model::Error {
    fn with_source_of(self, error: Error) -> Self {
        match error {
            Error::Spawn { source, .. } | Error::Connect { source, .. } | Error::Bundle { source, .. } => {
                self.with_source(source)
            }
            Error::Reply { source, .. } => self.with_source(source),
            Error::Unmount { source, .. } => self.with_source(source),
            Error::Call { source: kevel_ttrpc::Error::Status(status), .. } => self.with_source(status.message),
            Error::Call { source, .. } => self.with_source(source),
            _ => self,
        }
    }
}

/// A code of the wire as one of ours.
fn code(code: kevel_ttrpc::Code) -> Code {
    use kevel_ttrpc::Code as Wire;
    match code {
        Wire::Ok | Wire::Unknown => Code::Unknown,
        Wire::Cancelled => Code::Cancelled,
        Wire::InvalidArgument => Code::InvalidArgument,
        Wire::DeadlineExceeded => Code::DeadlineExceeded,
        Wire::NotFound => Code::NotFound,
        Wire::AlreadyExists => Code::AlreadyExists,
        Wire::PermissionDenied => Code::PermissionDenied,
        Wire::ResourceExhausted => Code::ResourceExhausted,
        Wire::FailedPrecondition => Code::FailedPrecondition,
        Wire::Aborted => Code::Aborted,
        Wire::OutOfRange => Code::OutOfRange,
        Wire::Unimplemented => Code::Unimplemented,
        Wire::Internal => Code::Internal,
        Wire::Unavailable => Code::Unavailable,
        Wire::DataLoss => Code::DataLoss,
        Wire::Unauthenticated => Code::Unauthenticated,
    }
}
