//! Performs what [`kevel_model::Mount`] describes: mounts, unmounts, temporary mounts, and the mount table.
//!
//! Everything here blocks; async callers go through `spawn_blocking`. What to mount is decided elsewhere: snapshotters
//! describe, this crate acts. Owners are mapped where a description says so, by a user namespace made for the purpose
//! ([`UserNamespace`], which others need, too). Loop devices are the [`Manager`]'s; the option `loop` is refused by name.

mod error;
mod idmap;
pub mod info;
mod manager;
mod options;
mod overlay;
mod perform;
mod temp;
mod unmount;
mod userns;

pub use error::{Error, Result};
pub use info::{MountInfo, mount_table};
pub use manager::{Activated, ActiveMount, Manager, needs_activation};
pub use options::{Options, Propagation};
pub use perform::{all, mount};
pub use rustix::mount::UnmountFlags;
pub use temp::{TempMount, clean_temp_mounts, read_only, with_temp_mount};
pub use unmount::{is_mount_point, unmount, unmount_all, unmount_recursive};
pub use userns::{IdRange, UserNamespace, With};
