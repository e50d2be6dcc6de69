//! Why a registry could not be used: one error for the transfer, with the answer of every host that was asked.

use std::{fmt, io, time::Duration};

use kevel_model::Code;

/// A failed call: what was asked of which registry, and what each host said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No host gave what was asked for.
    #[error("{doing} {object}: {}", list(.answers))]
    Hosts {
        /// What was being done, e.g. `resolving`.
        doing: &'static str,
        /// To what: a reference, or a digest with its repository.
        object: String,
        /// What each host said, in the order they were asked.
        answers: Vec<Answer>,
    },
    /// The configuration of a host is wrong or can't be read.
    #[error("host configuration {file}: {message}")]
    Config {
        /// The file.
        file: String,
        /// Which field and why.
        message: String,
    },
    /// What was asked can't be asked of a registry.
    #[error("{0}")]
    Invalid(String),
}

/// What one host said.
#[derive(Debug)]
pub struct Answer {
    /// The host as it was asked, `scheme://authority`.
    pub host: String,
    /// What was wrong.
    pub why: Why,
}

/// What was wrong with one host.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// No answer in time.
    #[error("{0} took longer than {1:?}")]
    Timeout(&'static str, Duration),
    /// The registry refused.
    #[error("status {status}{}", detail(.message))]
    Status {
        /// HTTP status.
        status: u16,
        /// The registry's own words, shortened.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The puller could not be authenticated.
    #[error("authentication: {0}")]
    Authentication(String),
    /// The answer breaks the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The content is not what was asked for.
    #[error("{0}")]
    Damaged(String),
    /// The answer is larger than allowed.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// The host's own settings are wrong.
    #[error("{0}")]
    Settings(String),
}

impl Why {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Timeout(..) => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599) && *status != 501,
            _ => false,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Connection(_) => Code::Unavailable,
            Self::Timeout(..) => Code::DeadlineExceeded,
            Self::Status { status, .. } => match status {
                401 => Code::Unauthenticated,
                403 => Code::PermissionDenied,
                404 | 410 => Code::NotFound,
                429 => Code::ResourceExhausted,
                408 | 500..=599 => Code::Unavailable,
                _ => Code::Unknown,
            },
            Self::Authentication(_) => Code::Unauthenticated,
            Self::Protocol(_) => Code::Unknown,
            Self::Damaged(_) => Code::DataLoss,
            Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::Settings(_) => Code::FailedPrecondition,
        }
    }
}

impl Error {
    /// The code of what the last host said: that is the registry itself, the others are mirrors.
    pub fn code(&self) -> Code {
        match self {
            Self::Hosts { answers, .. } => answers.last().map_or(Code::NotFound, |last| last.why.code()),
            Self::Config { .. } => Code::FailedPrecondition,
            Self::Invalid(_) => Code::InvalidArgument,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Hosts { answers, .. } if answers.iter().any(|answer| answer.why.is_transient()))
    }

    pub(crate) fn config(file: &std::path::Path, message: impl Into<String>) -> Self {
        Self::Config { file: file.display().to_string(), message: message.into() }
    }
}

impl From<Error> for kevel_model::Error {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Lets a blob be read by what knows only I/O errors.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

fn list(answers: &[Answer]) -> String {
    if answers.is_empty() {
        return "no host is configured for this".to_owned();
    }
    answers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.why)
    }
}
