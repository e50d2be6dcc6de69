//! Images, as CRI sees them: by the digest of their config, under all their names.

mod config;
pub(crate) mod fs_info;
mod index;
mod list;
mod progress;
mod pull;
mod remove;
mod resolve;
mod room;
mod status;

pub(crate) use config::ImageConfig;
pub(crate) use index::{ArtifactFile, Image};

use std::{
    collections::BTreeMap,
    hash::RandomState,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use kevel_contract::{
    Scope, content::ContentStore, event::EventExchange, image::ImageStore, metadata::GarbageCollector,
    metric::MetricRegistry, snapshot::Snapshotter, transfer::Transfer,
};
use kevel_model::{Namespace, Result};

use crate::{
    config::ImagesConfig,
    counters::PullCounters,
    operation::{Operations, Progress},
    usage::Layers,
};
use index::ImageIndex;

/// Images that the CRI made say so with this label.
pub(crate) const MANAGED: &str = "io.cri-containerd.image";
/// Images that are never collected have this label.
pub(crate) const PINNED: &str = "io.cri-containerd.pinned";

/// What images are made of.
pub struct ImageParts {
    /// Image records.
    pub images: ImageStore,
    /// Blobs.
    pub content: ContentStore,
    /// Snapshotters, namespaced, by name.
    pub snapshotters: Arc<BTreeMap<String, Snapshotter>>,
    /// Who frees what was removed.
    pub garbage: GarbageCollector,
    /// Who pulls.
    pub transfer: Transfer,
    /// Events of the core.
    pub events: EventExchange,
    /// Where metrics go.
    pub metrics: MetricRegistry,
    /// The configuration.
    pub config: ImagesConfig,
    /// The daemon's root directory, below which snapshotters have theirs.
    pub root: PathBuf,
}

/// The images of the node.
pub struct Images {
    images: ImageStore,
    content: ContentStore,
    snapshotters: Arc<BTreeMap<String, Snapshotter>>,
    garbage: GarbageCollector,
    transfer: Transfer,
    events: EventExchange,
    pub(crate) config: ImagesConfig,
    root: PathBuf,
    scope: Scope,
    index: RwLock<ImageIndex>,
    pulls: Operations,
    progress: progress::Pulls,
    /// Tells secrets apart in the keys of pulls without showing them.
    secrets: RandomState,
    layers: Layers,
    counters: PullCounters,
}

impl Images {
    /// Reads every image that is there.
    ///
    /// # Errors
    /// When the image store does not answer, or the name of a metric is taken; an image that can't be read is left out and logged.
    pub async fn new(parts: ImageParts) -> Result<Arc<Self>> {
        let layers = Layers::new(Duration::from_secs(parts.config.stats_collect_period));
        let images = Arc::new(Self {
            layers,
            counters: PullCounters::new(&parts.metrics)?,
            images: parts.images,
            content: parts.content,
            snapshotters: parts.snapshotters,
            garbage: parts.garbage,
            transfer: parts.transfer,
            events: parts.events,
            config: parts.config,
            root: parts.root,
            scope: Scope::new(Namespace::k8s()),
            index: RwLock::default(),
            pulls: Operations::default(),
            progress: progress::Pulls::default(),
            secrets: RandomState::new(),
        });
        images.load().await?;
        Ok(images)
    }

    /// Where images of a handler are unpacked: what the handler says, else what the images' configuration says.
    pub(crate) fn snapshotter_of(&self, handler: &str, own: &str) -> String {
        let platform = self.config.runtime_platforms.get(handler).map_or("", |one| one.snapshotter.as_str());
        let names = [own, platform, self.config.snapshotter.as_str()];
        names.into_iter().find(|name| !name.is_empty()).unwrap_or("overlayfs").to_owned()
    }

    /// The pulls under way, as verbose status shows them.
    pub(crate) fn pulls_under_way(&self) -> Vec<serde_json::Value> {
        self.progress.describe()
    }

    /// Pulls that run.
    pub(crate) fn running_pulls(&self) -> Vec<Progress> {
        self.pulls.list()
    }

    fn read_index<T>(&self, read: impl FnOnce(&ImageIndex) -> T) -> T {
        read(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_index<T>(&self, change: impl FnOnce(&mut ImageIndex) -> T) -> T {
        change(&mut self.index.write().unwrap_or_else(PoisonError::into_inner))
    }
}
