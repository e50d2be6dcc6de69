//! The native snapshotter: every snapshot is a whole tree, copied from its parent. Works on any file system; shares
//! blocks where the file system can.

mod copy;
mod driver;
mod plugin;

pub use driver::Native;
pub use plugin::{Config, Plugin};

use std::path::Path;

use kevel_model::Result;

use crate::Snapshots;

/// Opens the snapshotter in `root`.
pub async fn open(root: &Path, sync_remove: bool) -> Result<Snapshots<Native>> {
    Snapshots::open(root, Native, sync_remove).await
}
