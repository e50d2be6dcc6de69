//! What processes use, read from the cgroup file system, of both versions, without asking a shim. Blocks on small files.

mod network;
mod place;
mod read;

pub(crate) use network::{Interface, interfaces};
pub(crate) use place::Place;
pub(crate) use read::{Pressure, Reading, Stall};
