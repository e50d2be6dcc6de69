//! Shims: finds their binaries, starts them, talks to them, notices their death and takes them up again after a restart;
//! and, on top of that, the task service and the sandbox controller `shim`.
//!
//! Only this crate starts shims. What runs inside of one is the shim's business; what a container shall be (its spec,
//! its root file system) is decided by whoever made its record.
//!
//! - [`ShimManager`]: the shims of the node (`binary`, `bundle`, `shim`, `manager`).
//! - `tasks`: the task service over them. `sandbox`: the sandbox controller.
//! - [`plugin`]: how all of it joins the daemon's graph.

mod address;
mod binary;
mod breaker;
mod bundle;
mod connection;
mod error;
mod log;
mod manager;
pub mod plugin;
mod sandbox;
mod shim;
mod tasks;
mod wire;

pub use address::Address;
pub use binary::{Bootstrap, Daemon, Protocol, Timeouts};
pub use bundle::{Bundle, Dirs};
pub use error::{Error, ReplyError, Result};
pub use manager::{RuntimeOf, ShimManager};
pub use sandbox::ShimController;
pub use shim::{Role, Shim};
pub use tasks::{Checkpoints, TaskManager};
