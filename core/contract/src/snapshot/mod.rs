//! Snapshots: file systems built from committed layers.

#[cfg(feature = "suite")]
pub mod suite;

use std::{borrow::Cow, time::SystemTime};

use async_trait::async_trait;
use kevel_model::{Adaptor, Filters, Labels, Mount, Result, filter};
use kevel_plugin::Kind as PluginKind;
use serde::{Deserialize, Serialize};

use crate::{Scope, call::handle};

/// Snapshotters on this node or behind a socket: `io.containerd.snapshotter.v1`.
pub enum Snapshotters {}

impl PluginKind for Snapshotters {
    const TYPE: &'static str = "io.containerd.snapshotter.v1";
    type Handle = Snapshotter;
}

/// The namespaced snapshots service, every snapshotter by name: `io.containerd.service.v1.snapshots-service`.
pub enum SnapshotService {}

impl PluginKind for SnapshotService {
    const TYPE: &'static str = "io.containerd.service.v1";
    type Handle = std::sync::Arc<std::collections::BTreeMap<String, Snapshotter>>;
}

/// The capability of a snapshotter that lets layers be unpacked before their parents: a snapshot is prepared without
/// parent and committed with [`Commit::parent`].
pub const CAPABILITY_REBASE: &str = "rebase";

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Read-only view of a committed snapshot; can't be committed.
    View,
    /// Writable, on top of its parent.
    Active,
    /// Immutable; can be a parent.
    Committed,
}

impl Kind {
    /// As filters and listings spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its key (active, view) or name (committed).
    pub name: String,
    /// The committed snapshot below it; empty for none.
    pub parent: String,
    /// What it is.
    pub kind: Kind,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it changed last.
    pub updated_at: SystemTime,
    /// Its labels.
    pub labels: Labels,
}

impl Adaptor for Info {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (name, []) if name == "name" => Some(self.name.as_str().into()),
            (name, []) if name == "parent" => {
                Some(self.parent.as_str()).filter(|parent| !parent.is_empty()).map(Into::into)
            }
            (name, []) if name == "kind" => Some(self.kind.as_str().into()),
            (name, key) if name == "labels" => filter::map_field(&self.labels, key),
            _ => None,
        }
    }
}

/// What a snapshot uses itself, without its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes on disk.
    pub size: u64,
    /// Inodes.
    pub inodes: u64,
}

/// What turns an active snapshot into a committed one.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Labels of the committed snapshot.
    pub labels: Labels,
    /// A parent other than the one it was prepared on; only where the snapshotter can rebase.
    pub parent: Option<String>,
}

/// A snapshotter, for whoever writes one.
///
/// `prepare` makes an active snapshot on a committed parent (or on nothing, with `parent` empty) and answers the mounts
/// to write it through; `commit` makes it immutable under a new name, after which its key is gone; `view` makes a
/// read-only one. `remove` refuses a snapshot that has children ("failed precondition"). Keys and names share one
/// space: "already exists". Mounts stay valid until the snapshot is removed. `cleanup` frees what removals left.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What is known of a snapshot.
    async fn stat(&self, scope: &Scope, key: &str) -> Result<Info>;
    /// Changes labels, by field paths.
    async fn update(&self, scope: &Scope, info: Info, fieldpaths: &[String]) -> Result<Info>;
    /// What it uses.
    async fn usage(&self, scope: &Scope, key: &str) -> Result<Usage>;
    /// The mounts of an active snapshot or view.
    async fn mounts(&self, scope: &Scope, key: &str) -> Result<Vec<Mount>>;
    /// Makes an active snapshot.
    async fn prepare(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>>;
    /// Makes a view.
    async fn view(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>>;
    /// Makes an active snapshot immutable under `name`.
    async fn commit(&self, scope: &Scope, name: &str, key: &str, commit: Commit) -> Result<()>;
    /// Removes a snapshot without children.
    async fn remove(&self, scope: &Scope, key: &str) -> Result<()>;
    /// All snapshots that match.
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>>;
    /// Frees what removals left behind.
    async fn cleanup(&self, scope: &Scope) -> Result<()>;
}

handle! {
    /// A snapshotter, for whoever uses one.
    Snapshotter over Backend {
        /// What is known of a snapshot.
        fn stat(scope: &Scope, key: &str) -> Info;
        /// Changes labels.
        fn update(scope: &Scope, info: Info, fieldpaths: &[String]) -> Info;
        /// What it uses.
        fn usage(scope: &Scope, key: &str) -> Usage;
        /// The mounts of an active snapshot or view.
        fn mounts(scope: &Scope, key: &str) -> Vec<Mount>;
        /// Makes an active snapshot.
        fn prepare(scope: &Scope, key: &str, parent: &str, labels: Labels) -> Vec<Mount>;
        /// Makes a view.
        fn view(scope: &Scope, key: &str, parent: &str, labels: Labels) -> Vec<Mount>;
        /// Makes an active snapshot immutable.
        fn commit(scope: &Scope, name: &str, key: &str, commit: Commit) -> ();
        /// Removes a snapshot without children.
        fn remove(scope: &Scope, key: &str) -> ();
        /// All snapshots that match.
        fn list(scope: &Scope, filters: &Filters) -> Vec<Info>;
        /// Frees what removals left behind.
        fn cleanup(scope: &Scope) -> ();
    }
}
