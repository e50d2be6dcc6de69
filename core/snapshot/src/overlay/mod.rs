//! The overlayfs snapshotter: a directory of changes per snapshot, stacked by the kernel.

mod driver;
mod mapping;
mod plugin;
mod probe;

pub use driver::{Options, Overlay};
pub use plugin::{Config, Plugin};
pub use probe::{in_user_namespace, supported};

use std::path::Path;

use kevel_model::Result;

use crate::Snapshots;

/// The label with the directory of a snapshot's own changes.
pub const UPPERDIR_LABEL: &str = "containerd.io/snapshot/overlay.upperdir";

/// Opens the snapshotter in `root`.
pub async fn open(root: &Path, options: Options, sync_remove: bool) -> Result<Snapshots<Overlay>> {
    Snapshots::open(root, Overlay::new(options), sync_remove).await
}
