//! Mounts that need more than mount(2): made ready by a manager under a name, and kept until something lets them go.
//!
//! What the types of such mounts say is the manager's; callers pass on what a snapshotter gave them.

#[cfg(feature = "suite")]
pub mod suite;

use std::{borrow::Cow, time::SystemTime};

use async_trait::async_trait;
use kevel_model::{Adaptor, Filters, Labels, Mount, Result, filter};
use kevel_plugin::Kind;

use crate::{Scope, call::handle};

/// The mount manager: `io.containerd.mount-manager.v1`.
pub enum MountManagers {}

impl Kind for MountManagers {
    const TYPE: &'static str = "io.containerd.mount-manager.v1";
    type Handle = MountManager;
}

/// What is to be made ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activate {
    /// The mounts, of which later ones may refer to earlier ones.
    pub mounts: Vec<Mount>,
    /// Labels; those of the garbage collector say what keeps it.
    pub labels: Labels,
    /// Whether everything is to be mounted, also what the caller could mount: it wants to look at the files.
    pub temporary: bool,
}

/// A mount that the manager made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveMount {
    /// What was mounted.
    pub mount: Mount,
    /// When.
    pub mounted_at: SystemTime,
    /// Where: a directory, or of a device a link to it.
    pub mount_point: String,
    /// What the type of mount says beside.
    pub data: Labels,
}

/// Mounts that are ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activation {
    /// Unique in its namespace.
    pub name: String,
    /// What the manager mounted.
    pub active: Vec<ActiveMount>,
    /// What is left for the caller to mount.
    pub system: Vec<Mount>,
    /// Its labels.
    pub labels: Labels,
}

impl Adaptor for Activation {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (name, []) if name == "name" => Some(self.name.as_str().into()),
            (name, key) if name == "labels" => filter::map_field(&self.labels, key),
            _ => None,
        }
    }
}

/// A mount manager, for whoever writes one. Mounts that need no manager are "unimplemented" and for the caller to mount as
/// they are. An activation that no lease, and no object by a `containerd.io/gc.bref.*` label, keeps is garbage.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Makes mounts ready under a name that is not taken.
    async fn activate(&self, scope: &Scope, name: &str, activate: Activate) -> Result<Activation>;
    /// Unmounts what was made ready.
    async fn deactivate(&self, scope: &Scope, name: &str) -> Result<()>;
    /// One activation.
    async fn info(&self, scope: &Scope, name: &str) -> Result<Activation>;
    /// Changes labels, by field paths `labels[.KEY]`; nothing else can change.
    async fn update(&self, scope: &Scope, activation: Activation, fieldpaths: &[String]) -> Result<Activation>;
    /// All activations that match.
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Activation>>;
}

handle! {
    /// A mount manager, for whoever uses one.
    MountManager over Backend {
        /// Makes mounts ready.
        fn activate(scope: &Scope, name: &str, activate: Activate) -> Activation;
        /// Unmounts what was made ready.
        fn deactivate(scope: &Scope, name: &str) -> ();
        /// One activation.
        fn info(scope: &Scope, name: &str) -> Activation;
        /// Changes labels.
        fn update(scope: &Scope, activation: Activation, fieldpaths: &[String]) -> Activation;
        /// All activations that match.
        fn list(scope: &Scope, filters: &Filters) -> Vec<Activation>;
    }
}
