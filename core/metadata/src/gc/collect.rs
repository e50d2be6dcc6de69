//! A collection: forget what nothing keeps, in one change; then remove what the backends have without a record.
//!
//! Records go first, so that a crash leaves only what the next collection finds again. Backends are called outside any
//! change, each for itself, so that one that does not answer costs only its own garbage.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use async_trait::async_trait;
use futures::future;
use kevel_contract::{
    Scope,
    content::{ContentStore, KEPT_ELSEWHERE},
    metadata::{Collect, Collected},
    snapshot::{self, Snapshotter},
};
use kevel_model::{Error, Filters, Namespace, Result};
use tokio::sync::Mutex;

use super::mark::{self, Garbage};
use crate::{
    core::{Core, Draft},
    event, mounts,
    shelf::part,
    snapshot::LABEL_TARGET,
    state::{Blobs, Images, Ingests, Leases, Mounts, Resources, Snapshots},
};

/// The collector. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Collector(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    content: ContentStore,
    snapshotters: BTreeMap<String, Snapshotter>,
    mounts: mounts::Store,
    /// Runs begun.
    begun: AtomicU64,
    /// Held by the run; the outcome of the last one that succeeded, with its number.
    turn: Arc<Mutex<(u64, Collected)>>,
}

#[async_trait]
impl Collect for Collector {
    async fn collect(&self) -> Result<Collected> {
        let (inner, asked) = (Arc::clone(&self.0), self.0.begun.load(Ordering::SeqCst));
        // A task of its own: a caller that hangs up does not stop it half-way.
        let run = tokio::spawn(async move {
            let mut turn = Arc::clone(&inner.turn).lock_owned().await;
            if turn.0 > asked {
                return Ok(turn.1); // a whole run since we were asked: ours too
            }
            let number = inner.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let collected = inner.run().await?;
            *turn = (number, collected);
            Ok(collected)
        });
        run.await.map_err(|error| Error::internal("garbage collection ended early").with_source(error))?
    }

    async fn forget(&self) -> Result<Collected> {
        let (inner, sweeper) = (Arc::clone(&self.0), self.clone());
        // A task of its own, for the same reason. It takes no turn: records may go while a run sweeps.
        let run = tokio::spawn(async move { inner.forget().await });
        let collected =
            run.await.map_err(|error| Error::internal("garbage collection ended early").with_source(error))??;
        if collected != Collected::default() {
            tokio::spawn(async move { report("everything", sweeper.collect().await.map(|_| 0)) });
        }
        Ok(collected)
    }
}

impl Collector {
    pub(crate) fn new(
        core: Arc<Core>,
        content: ContentStore,
        snapshotters: BTreeMap<String, Snapshotter>,
        mounts: mounts::Store,
    ) -> Self {
        let (begun, turn) = (AtomicU64::new(0), Arc::default());
        Self(Arc::new(Inner { core, content, snapshotters, mounts, begun, turn }))
    }
}

impl Inner {
    async fn run(&self) -> Result<Collected> {
        let collected = self.forget().await?;
        // First: what is mounted of a snapshot keeps its files busy.
        report("mounts", self.mounts.settle().await);
        let blobs = async {
            report("content", self.sweep_blobs().await);
            report("ingests", self.sweep_ingests().await);
        };
        let snapshots = future::join_all(self.snapshotters.iter().map(|(name, backend)| async move {
            report(name, self.sweep_snapshots(name, backend).await);
        }));
        future::join(blobs, snapshots).await;
        if collected != Collected::default() {
            tracing::info!(?collected, "garbage collected");
        }
        Ok(collected)
    }

    /// Removes the records of what nothing keeps.
    async fn forget(&self) -> Result<Collected> {
        let state = self.core.state();
        let seen = state.generation;
        let marked = tokio::task::spawn_blocking(move || mark::garbage(&state, SystemTime::now()));
        let marked = marked.await.map_err(|error| Error::internal("marking garbage failed").with_source(error))?;
        if marked.is_empty() {
            return Ok(Collected::default());
        }
        let change = move |draft: &mut Draft<'_, '_>| {
            // Something came in between: what looked like garbage may be referred to now.
            let garbage = match draft.state.generation == seen {
                true => marked,
                false => mark::garbage(draft.state, draft.now),
            };
            Ok(forget(draft, &garbage))
        };
        self.core.change(&Namespace::k8s(), change).await
    }

    /// Our own store knows no namespaces. Another daemon's does, and has blobs that are not ours.
    async fn sweep_blobs(&self) -> Result<usize> {
        if !self.content.target().is_remote() {
            return self.sweep_blobs_of(&Namespace::k8s(), &Filters::default()).await;
        }
        let (label, value) = KEPT_ELSEWHERE;
        let ours = Filters::parse(&[format!("labels.{label:?}=={value}")])?;
        let state = self.core.state();
        let namespaces: BTreeSet<_> = state.namespaces.all().map(|(name, _)| name.to_owned()).collect();
        let mut swept = 0;
        for namespace in namespaces {
            swept += self.sweep_blobs_of(&Namespace::new(&namespace)?, &ours).await?;
        }
        Ok(swept)
    }

    async fn sweep_blobs_of(&self, namespace: &Namespace, filters: &Filters) -> Result<usize> {
        let scope = Scope::new(namespace.clone());
        let mut swept = 0;
        for blob in self.content.list(&scope, filters).await? {
            let digest = blob.digest.as_str();
            let Some(_claim) = self.core.blobs.try_alone(digest) else { continue };
            if self.known_blob(digest) {
                continue;
            }
            match self.content.delete(&scope, &blob.digest).await {
                Ok(()) => swept += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => tracing::warn!(digest, error = %error.chain(), "blob could not be removed"),
            }
        }
        Ok(swept)
    }

    fn known_blob(&self, digest: &str) -> bool {
        let state = self.core.state();
        let mut namespaces = state.namespaces.all();
        namespaces.any(|(namespace, _)| state.blobs.get(&format!("{namespace}\0{digest}")).is_some())
    }

    async fn sweep_ingests(&self) -> Result<usize> {
        let scope = Scope::new(Namespace::k8s());
        let found = self.content.statuses(&scope, &Filters::default()).await?;
        // Read after the backend: an ingest is recorded before the backend makes it.
        let state = self.core.state();
        let known: BTreeSet<_> = state.ingests.all().map(|(_, ingest)| ingest.backend.as_str()).collect();
        let mut swept = 0;
        for status in found {
            let name = status.reference.as_str();
            if known.contains(name) || !is_ours(name) {
                continue;
            }
            match self.content.abort(&scope, name).await {
                Ok(()) => swept += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => tracing::warn!(ingest = name, error = %error.chain(), "ingest could not be removed"),
            }
        }
        Ok(swept)
    }

    async fn sweep_snapshots(&self, name: &str, backend: &Snapshotter) -> Result<usize> {
        let scope = Scope::new(Namespace::k8s());
        let found = backend.list(&scope, &Filters::default()).await?;
        // First the reservations, then the records: what is made meanwhile is in one of them.
        let reserved = |info: &snapshot::Info| {
            let target = info.labels.get(LABEL_TARGET);
            self.core.reserved.contains(&info.name) || target.is_some_and(|target| self.core.reserved.contains(target))
        };
        let unreserved: Vec<_> = found.into_iter().filter(|info| !reserved(info)).collect();
        let state = self.core.state();
        let recorded = state.snapshots.all().filter(|(key, _)| key.split('\0').nth(1) == Some(name));
        let known: BTreeSet<_> = recorded.map(|(_, snapshot)| snapshot.backend.as_str()).collect();
        let ours = |info: &snapshot::Info| is_ours(&info.name) || info.labels.contains_key(LABEL_TARGET);
        let orphan = |info: &snapshot::Info| !known.contains(info.name.as_str()) && ours(info);
        let orphans: Vec<_> = unreserved.into_iter().filter(orphan).collect();
        let mut swept = 0;
        for key in leaves_first(&orphans) {
            match backend.remove(&scope, key).await {
                Ok(()) => swept += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => tracing::warn!(snapshot = key, error = %error.chain(), "snapshot could not be removed"),
            }
        }
        match backend.cleanup(&scope).await {
            Err(error) if !error.is_unimplemented() => Err(error),
            _ => Ok(swept),
        }
    }
}

fn report(backend: &str, swept: Result<usize>) {
    match swept {
        Ok(count) => tracing::debug!(backend, count, "objects without a record removed"),
        Err(error) => tracing::warn!(backend, error = %error.chain(), "garbage could not be removed"),
    }
}

/// Whether a backend name has the form of ours, `namespace/number/name`. Others have another owner.
fn is_ours(name: &str) -> bool {
    let mut parts = name.splitn(3, '/');
    let namespace = parts.next().is_some_and(|part| !part.is_empty());
    let number = parts.next().is_some_and(|part| part.parse::<u64>().is_ok());
    namespace && number && parts.next().is_some_and(|part| !part.is_empty())
}

/// The names, children before their parents.
fn leaves_first(snapshots: &[snapshot::Info]) -> Vec<&str> {
    let mut children: HashMap<&str, usize> = HashMap::new();
    let by_name: HashMap<_, _> = snapshots.iter().map(|info| (info.name.as_str(), info)).collect();
    for info in snapshots {
        *children.entry(info.parent.as_str()).or_default() += 1;
    }
    let mut ready: Vec<_> = snapshots.iter().filter(|info| !children.contains_key(info.name.as_str())).collect();
    let mut order = Vec::with_capacity(snapshots.len());
    while let Some(info) = ready.pop() {
        order.push(info.name.as_str());
        if let Some(left) = children.get_mut(info.parent.as_str()) {
            *left -= 1;
            if let Some(parent) = by_name.get(info.parent.as_str()).filter(|_| *left == 0) {
                ready.push(parent);
            }
        }
    }
    order
}

/// Removes records, and notes the events of it.
fn forget(draft: &mut Draft<'_, '_>, garbage: &Garbage) -> Collected {
    for key in &garbage.blobs {
        draft.forget::<Blobs>(key);
        draft.event_in(part_namespace(key), "/content/delete", event::content_delete(part(key, 1)));
    }
    for key in &garbage.snapshots {
        draft.forget::<Snapshots>(key);
        let snapshotter = part(key, 1).split('\0').next().unwrap_or_default();
        let removed = event::snapshot_remove(snapshotter, part(key, 2));
        draft.event_in(part_namespace(key), "/snapshot/remove", removed);
    }
    for key in &garbage.images {
        draft.forget::<Images>(key);
        draft.event_in(part_namespace(key), "/images/delete", event::image_delete(part(key, 1)));
    }
    garbage.mounts.iter().for_each(|key| draft.forget::<Mounts>(key));
    garbage.ingests.iter().for_each(|key| draft.forget::<Ingests>(key));
    garbage.resources.iter().for_each(|key| draft.forget::<Resources>(key));
    garbage.leases.iter().for_each(|key| draft.forget::<Leases>(key));
    Collected {
        blobs: garbage.blobs.len(),
        ingests: garbage.ingests.len(),
        snapshots: garbage.snapshots.len(),
        leases: garbage.leases.len(),
        images: garbage.images.len(),
        mounts: garbage.mounts.len(),
    }
}

fn part_namespace(key: &str) -> &str {
    key.split('\0').next().unwrap_or_default()
}
