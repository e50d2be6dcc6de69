//! Shim binaries: finding them, running them, and reading what they answer.

mod invoke;
mod reply;
mod resolve;

use std::{path::PathBuf, time::Duration};

pub(crate) use invoke::{Invocation, delete, info, start};
pub use reply::{Bootstrap, Protocol};
pub(crate) use resolve::Binaries;

/// What shims are told about the daemon, and where it looks for them. The daemon fills this in from its configuration
/// and its environment; nothing in this crate reads either.
#[derive(Clone, Debug, Default)]
pub struct Daemon {
    /// The address of the daemon's gRPC socket. It takes part in the names of the shims' sockets.
    pub grpc_address: String,
    /// The address of the ttrpc socket on which shims report events.
    pub ttrpc_address: String,
    /// The daemon's binary; shims without ttrpc run it to publish events.
    pub binary: PathBuf,
    /// Where shim binaries are looked for, in order.
    pub search_path: Vec<PathBuf>,
    /// Variables that shims get on top of what the daemon itself inherited.
    pub env: Vec<(String, String)>,
    /// Where shims make their sockets; their own default when there is none.
    pub socket_dir: Option<PathBuf>,
    /// Whether shims shall say more.
    pub debug: bool,
}

/// How long each thing with a shim may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// `start` of the binary, and connecting.
    pub start: Duration,
    /// `delete` of the binary.
    pub cleanup: Duration,
    /// `-info` of the binary.
    pub info: Duration,
    /// Re-adopting one shim after a restart of the daemon.
    pub load: Duration,
    /// The Shutdown call.
    pub shutdown: Duration,
    /// The events of a container's end, once it is deleted.
    pub report: Duration,
    /// The State call.
    pub state: Duration,
    /// The Stats call.
    pub stats: Duration,
    /// Calls that make, start or remove processes.
    pub work: Duration,
    /// The Kill call with SIGKILL.
    pub kill: Duration,
    /// The Delete call.
    pub delete: Duration,
    /// From SIGKILL to the end of a container, before force is used; and again after that.
    pub end: Duration,
    /// Calls that only tell the shim something.
    pub quick: Duration,
    /// Checkpoint, which writes the memory of a container to a disk.
    pub checkpoint: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            start: seconds(60),
            cleanup: seconds(5),
            info: seconds(10),
            load: seconds(5),
            shutdown: seconds(3),
            report: seconds(2),
            state: seconds(2),
            stats: seconds(2),
            work: seconds(120),
            kill: seconds(10),
            delete: seconds(15),
            end: seconds(10),
            quick: seconds(30),
            checkpoint: seconds(600),
        }
    }
}
