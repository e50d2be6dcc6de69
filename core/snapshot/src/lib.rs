//! Snapshotters on this node's file systems: overlayfs, and native (a full copy per snapshot).
//!
//! Both are one [`Snapshots`] store over a driver that knows how a snapshot's directory is made and mounted. On disk
//! they have containerd's layout; what is known of snapshots is in a database of their own:
//!
//! ```text
//! <root>/snapshots.db          keys, names, parents, labels, usage (core/database)
//! <root>/snapshots/<n>/fs      overlayfs: what a snapshot adds to its parents
//! <root>/snapshots/<n>/work    overlayfs: work directory of an active snapshot
//! <root>/snapshots/<n>/        native: the whole tree
//! <root>/snapshots/rm-<n>/     removed, being deleted
//! ```
//!
//! A directory is made before its record and deleted after it, so that a crash leaves directories without a record,
//! which the next start deletes, and never the reverse. A committed layer counts as durable once its file system was
//! synced after the commit, which happens in the background; after a power failure the layers that were not are
//! forgotten, with all that was built on them, instead of being served half-written.

mod delete;
mod directory;
mod error;
pub mod native;
pub mod overlay;
mod recovery;
mod row;
mod state;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod usage;

pub use error::Error;
pub use store::Snapshots;
