//! A store over real backends: content in files, the native snapshotter, and a database on a disk that can lose power.

#![allow(dead_code, reason = "every test uses a part")]

use std::path::Path;

use kevel_content::LocalStore;
use kevel_contract::{
    Scope,
    call::Target,
    content::ContentStore,
    event::EventExchange,
    metadata::{Collected, Stores},
    snapshot::Snapshotter,
};
use kevel_database::{Database, crash::Disk};
use kevel_event::Exchange;
use kevel_metadata::{SCHEMA, SharingPolicy};
use kevel_model::{Descriptor, Digest, Filters, Labels, Namespace, media_type};
use kevel_snapshot::native;
use tempfile::TempDir;

pub(crate) const SNAPSHOTTER: &str = "native";

pub(crate) struct Node {
    pub(crate) stores: Stores,
    /// What is below the stores, to look at and to disturb.
    pub(crate) content: ContentStore,
    pub(crate) snapshots: Snapshotter,
    pub(crate) events: EventExchange,
    pub(crate) disk: Disk,
    directory: Option<TempDir>,
}

impl Node {
    pub(crate) async fn new() -> Self {
        Self::with(SharingPolicy::Shared).await
    }

    pub(crate) async fn with(policy: SharingPolicy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::on(directory, Disk::new(), policy).await
    }

    async fn on(directory: TempDir, disk: Disk, policy: SharingPolicy) -> Self {
        let (content, snapshots) = backends(directory.path()).await;
        let events = EventExchange::new(Target::local("events"), Exchange::default());
        let database = Database::on("metadata", disk.clone(), &SCHEMA).unwrap();
        let snapshotters = [(SNAPSHOTTER.to_owned(), snapshots.clone())].into();
        let mounts = kevel_mount::Manager::new(directory.path().join("mounts"), []);
        let stores =
            kevel_metadata::open(database, content.clone(), snapshotters, mounts, events.clone(), policy).unwrap();
        Self { stores, content, snapshots, events, disk, directory: Some(directory) }
    }

    /// The node after a power loss: the backends keep what they have, the database what was synced.
    pub(crate) async fn after_power_loss(mut self, survives: impl FnMut(usize) -> bool) -> Self {
        let directory = self.directory.take().unwrap();
        let disk = self.disk.after_power_loss(survives);
        drop(self);
        Self::on(directory, disk, SharingPolicy::Shared).await
    }

    pub(crate) fn snapshotter(&self) -> &Snapshotter {
        &self.stores.snapshotters[SNAPSHOTTER]
    }

    pub(crate) async fn collect(&self) -> Collected {
        self.stores.garbage.collect().await.unwrap()
    }

    pub(crate) async fn put(&self, scope: &Scope, data: &str, labels: &[(&str, &str)]) -> Digest {
        let put = self.stores.content.put(scope, data, data.to_owned().into(), label(labels));
        put.await.unwrap()
    }

    /// A committed snapshot on a parent (empty for none).
    pub(crate) async fn layer(&self, scope: &Scope, name: &str, parent: &str, labels: &[(&str, &str)]) {
        let key = format!("unpack-{name}");
        self.snapshotter().prepare(scope, &key, parent, Labels::new()).await.unwrap();
        let commit = kevel_contract::snapshot::Commit { labels: label(labels), parent: None };
        self.snapshotter().commit(scope, name, &key, commit).await.unwrap();
    }

    pub(crate) async fn image(&self, scope: &Scope, name: &str, target: &Digest) {
        let target = Descriptor::new(media_type::OCI_MANIFEST, target.clone(), 1);
        let image = kevel_contract::image::Image::new(name, target, Labels::new());
        self.stores.images.create(scope, image).await.unwrap();
    }

    pub(crate) async fn blobs(&self, scope: &Scope) -> Vec<Digest> {
        let all = self.stores.content.list(scope, &Filters::default()).await.unwrap();
        all.into_iter().map(|info| info.digest).collect()
    }

    pub(crate) async fn names(&self, scope: &Scope) -> Vec<String> {
        let all = self.snapshotter().list(scope, &Filters::default()).await.unwrap();
        all.into_iter().map(|info| info.name).collect()
    }

    /// Blobs and snapshots that the backends have.
    pub(crate) async fn below(&self) -> (usize, usize) {
        let any = scope("any");
        let blobs = self.content.list(&any, &Filters::default()).await.unwrap().len();
        (blobs, self.snapshots.list(&any, &Filters::default()).await.unwrap().len())
    }
}

async fn backends(root: &Path) -> (ContentStore, Snapshotter) {
    let content = LocalStore::open(&root.join("content")).await.unwrap();
    let snapshots = native::open(&root.join("snapshots"), true).await.unwrap();
    (ContentStore::new(Target::local("local"), content), Snapshotter::new(Target::local(SNAPSHOTTER), snapshots))
}

pub(crate) fn scope(namespace: &str) -> Scope {
    Scope::new(Namespace::new(namespace).unwrap())
}

pub(crate) fn label(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
