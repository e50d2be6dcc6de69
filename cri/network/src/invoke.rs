//! The seam through which a plugin `type` is called.
//!
//! A chain asks an [`Invoker`] and does not know whether a binary was started or a function called. [`ExecInvoker`]
//! starts binaries as the specification says; an invoker for plugins built into the daemon answers the types that it
//! knows and hands the rest to the next one.

mod exec;

pub use exec::ExecInvoker;

use crate::result::ResultError;
use crate::{Kind, SpecVersion};
use async_trait::async_trait;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What a plugin can be asked to do, the values of `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Detach a container.
    Del,
    /// See whether an attachment is as ADD left it.
    Check,
    /// See whether ADD can be served.
    Status,
    /// Remove what belongs to no valid attachment.
    Gc,
    /// Say which specification versions are spoken.
    Version,
}

/// One call of one plugin.
#[derive(Clone, Debug)]
pub struct Call {
    /// `CNI_COMMAND`.
    pub verb: Verb,
    /// The plugin's `type`.
    pub plugin: String,
    /// `CNI_CONTAINERID`; empty for STATUS, GC and VERSION.
    pub container_id: String,
    /// `CNI_NETNS`; `None` where there is none, or none any more.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`; empty for STATUS, GC and VERSION.
    pub ifname: String,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// The request configuration, JSON.
    pub config: Vec<u8>,
    /// After this time the call fails and whatever was started is killed.
    pub timeout: Duration,
}

/// Runs plugins.
///
/// Dropping the future of a call must end the plugin: no process may outlive its call.
#[async_trait]
pub trait Invoker: Send + Sync {
    /// Whether the plugin `type` can be called at all; asked before an attachment changes anything.
    ///
    /// # Errors
    /// [`PluginError::NotFound`].
    async fn find(&self, plugin: &str) -> Result<(), PluginError>;

    /// Calls the plugin; the answer is what it said on success, at most 1 MiB, not yet validated.
    ///
    /// # Errors
    /// Every [`PluginError`] but [`PluginError::Result`].
    async fn invoke(&self, call: &Call) -> Result<Vec<u8>, PluginError>;
}

/// How a plugin can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// No such plugin.
    #[error("no executable {plugin:?} in {}", Paths(.searched))]
    NotFound {
        /// The `type`.
        plugin: String,
        /// Where it was searched.
        searched: Vec<PathBuf>,
    },
    /// The plugin could not be started or talked to.
    #[error("{action} {path}", path = path.display())]
    Process {
        /// What was being done.
        action: &'static str,
        /// The executable.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The plugin said why it failed (spec section 5, Error).
    #[error("error {code}: {msg}{}{details}", if details.is_empty() { "" } else { ": " })]
    Reported {
        /// 1 to 99 are the specification's, 100 and above the plugin's.
        code: u32,
        /// In short.
        msg: String,
        /// In long; may be empty.
        details: String,
    },
    /// The plugin failed and said nothing that can be understood.
    #[error("{outcome} without an error object, stdout {stdout:?}, stderr {stderr:?}")]
    Failed {
        /// How it ended, for example `exit status: 1` or `signal: 9 (SIGKILL)`.
        outcome: String,
        /// The beginning of its output.
        stdout: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// The plugin did not end in time and was killed.
    #[error("no answer within {after:?}, killed")]
    Timeout {
        /// The time it had.
        after: Duration,
    },
    /// The plugin wrote more than is read, and was killed.
    #[error("more than {limit} bytes of output, killed")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The plugin does not speak the version of the configuration.
    #[error("version {wanted} is not among {spoken:?}")]
    Version {
        /// The configuration's.
        wanted: SpecVersion,
        /// The plugin's.
        spoken: Vec<SpecVersion>,
    },
    /// The plugin succeeded, but its answer is not a result.
    #[error("answer is not a valid result")]
    Result(#[source] ResultError),
}

/// Spec section 5: the container is unknown, no clean-up is needed.
const CODE_UNKNOWN_CONTAINER: u32 = 3;
/// Spec section 5: an environment variable is not valid, CNI_COMMAND among them.
const CODE_BAD_ENVIRONMENT: u32 = 4;
/// Spec section 5: a transient condition.
const CODE_TRY_LATER: u32 = 11;
/// Spec section 5: ADD cannot be served (50), and pods may have limited connectivity (51).
const CODES_UNAVAILABLE: [u32; 2] = [50, 51];

impl PluginError {
    /// What a caller should make of it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::FailedPrecondition,
            Self::Timeout { .. } => Kind::DeadlineExceeded,
            Self::Reported { code, .. } if *code == CODE_TRY_LATER || CODES_UNAVAILABLE.contains(code) => {
                Kind::Unavailable
            }
            _ => Kind::Internal,
        }
    }

    /// The plugin knows nothing of the container, so there is nothing to undo.
    pub(crate) fn is_unknown_container(&self) -> bool {
        matches!(self, Self::Reported { code: CODE_UNKNOWN_CONTAINER, .. })
    }

    /// The plugin does not know the verb: it is older than the verb, which is no fault of the network.
    pub(crate) fn is_unknown_verb(&self) -> bool {
        matches!(self, Self::Reported { code: CODE_BAD_ENVIRONMENT, msg, .. } if msg.contains("CNI_COMMAND"))
    }
}

impl Verb {
    /// The value of `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

struct Paths<'a>(&'a [PathBuf]);

impl fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, path) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{}", path.display())?;
        }
        Ok(())
    }
}
