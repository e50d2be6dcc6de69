//! The metadata store: one handle to every namespaced store of the node.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use kevel_model::Result;
use kevel_plugin::Kind;
use tokio::sync::watch;

use crate::{
    container::ContainerStore, content::ContentStore, image::ImageStore, lease::LeaseManager, mounts::MountManager,
    namespace::NamespaceStore, sandbox::SandboxStore, snapshot::Snapshotter,
};

/// The metadata database: `io.containerd.metadata.v1`.
pub enum Metadata {}

impl Kind for Metadata {
    const TYPE: &'static str = "io.containerd.metadata.v1";
    type Handle = Stores;
}

/// Every store, namespaced. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Content with labels.
    pub content: ContentStore,
    /// Snapshotters by name.
    pub snapshotters: Arc<BTreeMap<String, Snapshotter>>,
    /// Images.
    pub images: ImageStore,
    /// Containers.
    pub containers: ContainerStore,
    /// Sandboxes.
    pub sandboxes: SandboxStore,
    /// Leases.
    pub leases: LeaseManager,
    /// Namespaces.
    pub namespaces: NamespaceStore,
    /// Mounts that are ready.
    pub mounts: MountManager,
    /// The garbage collector.
    pub garbage: GarbageCollector,
    /// How much was changed so far; tells the scheduler of the garbage collector when there may be work.
    pub activity: watch::Receiver<Activity>,
}

/// How much was changed since the metadata store opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Changes of any sort.
    pub mutations: u64,
    /// Changes that may have left garbage: removals and replaced references.
    pub deletions: u64,
}

/// The garbage collector: `io.containerd.gc.v1`.
pub enum Garbage {}

impl Kind for Garbage {
    const TYPE: &'static str = "io.containerd.gc.v1";
    type Handle = GarbageCollector;
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: usize,
    /// Ingests removed.
    pub ingests: usize,
    /// Snapshots removed.
    pub snapshots: usize,
    /// Leases that had run out.
    pub leases: usize,
    /// Images removed because what they expired with is gone.
    pub images: usize,
    /// Activations of mounts that nothing keeps.
    pub mounts: usize,
}

/// A collector of unreferenced objects, for whoever writes one.
#[async_trait]
pub trait Collect: Send + Sync + 'static {
    /// Collects now and answers when done; callers that come while it runs share the next run.
    async fn collect(&self) -> Result<Collected>;
    /// Forgets what nothing keeps: when this answers it is gone from every list and every sum, and its storage is being
    /// freed in the background.
    async fn forget(&self) -> Result<Collected>;
}

crate::call::handle! {
    /// The garbage collector, for whoever uses it.
    GarbageCollector over Collect {
        /// Collects now.
        fn collect() -> Collected;
        /// Forgets now, and frees storage in the background.
        fn forget() -> Collected;
    }
}
