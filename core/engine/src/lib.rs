//! The built-in OCI runtime engine: containers of the OCI Linux runtime spec, made by this library in the process that
//! uses it. No runtime binary, no async, no state on disk.
//!
//! An [`Engine`] belongs to a process with one thread, since a container's process begins as a copy of it. It plans a
//! container from its spec ([`spec::load`]), makes its cgroup, and clones once, straight into new namespaces; what the
//! child has to do is a list of prepared steps. The container then waits for [`Container::start`].
//!
//! Shims, sockets and logs live elsewhere; what a container used is `kevel-cgroup`'s to read.

mod cgroup;
mod child;
mod container;
mod error;
mod features;
mod idmap;
mod launch;
mod plan;
pub mod seal;
mod seccomp;
pub mod spec;
mod sys;

pub use container::{Container, Engine, Exit, Process, Record, Status};
pub use error::{Error, Result};
pub use features::features;
pub use oci_spec::runtime::{LinuxResources, Process as ProcessSpec, Spec};
pub use seccomp::{Filter, compile as compile_seccomp};

use std::os::fd::OwnedFd;

/// The standard streams of a process. `None` leaves the engine's own. With a terminal they are not used.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// What is not in the spec.
#[derive(Debug, Default)]
pub struct Options {
    /// The standard streams.
    pub stdio: Stdio,
    /// Change the root by moving the mount, for a root that is the initial ramfs. Leaves the host's tree reachable to who
    /// may mount.
    pub no_pivot: bool,
    /// Share the engine's session keyring.
    pub no_new_keyring: bool,
    /// Where the engine may not lower the OOM score adjustment, leave it at its own instead of failing.
    pub clamp_oom_score_adj: bool,
    /// Descriptors from 3 on that the process gets.
    pub preserve_fds: u32,
    /// A FIFO, open for reading and writing, that the process waits on for a byte. So another process can start the
    /// container; without it, only [`Container::start`] can.
    pub gate: Option<OwnedFd>,
}
