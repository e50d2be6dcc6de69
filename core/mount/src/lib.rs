//! Performs what [`kevel_model::Mount`] describes: mounts, unmounts, temporary mounts, and the mount table.
//!
//! Everything here blocks; async callers go through `spawn_blocking`. What to mount is decided elsewhere: snapshotters
//! describe, this crate acts. Loop devices and id-mapped mounts are not here; their options are refused by name.

mod error;
pub mod info;
mod options;
mod overlay;
mod perform;
mod temp;
mod unmount;

pub use error::{Error, Result};
pub use info::{MountInfo, mount_table};
pub use options::{Options, Propagation};
pub use perform::{all, mount};
pub use rustix::mount::UnmountFlags;
pub use temp::{TempMount, clean_temp_mounts, read_only, with_temp_mount};
pub use unmount::{is_mount_point, unmount, unmount_all, unmount_recursive};
