//! What processes use and may use, read from the cgroup file system of both versions, and the kernel's word that it
//! killed one for want of memory. Nothing here makes, changes or removes a cgroup, asks a shim, or knows a container.
//!
//! [`Hierarchies`] finds where a process's cgroups are, once for a node; a [`Place`] is read as often as one likes with
//! the groups of numbers: [`Cpu`], [`Memory`], [`Pids`], [`Io`], [`Hugetlb`], [`Limits`], [`Pressures`], [`Processes`].
//! [`Families`] are which processes come from which.
//! What the kernel does not tell is `None` or left out, never a zero that looks like a measurement. Reading blocks on
//! small files in memory.

mod cpu;
mod family;
mod file;
mod hugetlb;
mod io;
mod limit;
mod memory;
mod oom;
mod pids;
mod place;
mod pressure;
mod process;

pub use cpu::Cpu;
pub use family::{Families, parent};
pub use hugetlb::Hugetlb;
pub use io::Io;
pub use limit::Limits;
pub use memory::Memory;
pub use oom::{OomCounter, OomWatch};
pub use pids::Pids;
pub use place::{Hierarchies, Place};
pub use pressure::{Pressure, Pressures, Stall};
pub use process::{Descriptors, Processes};
