//! The namespaced view of a snapshotter.
//!
//! A snapshot's name in its namespace maps to a name of ours in the backend (`namespace/number/name`), used once and
//! never again. No backend is called inside a change or under a lock. What is made exists in the backend first, under
//! a reserved name, and is recorded then; what is removed is forgotten first. So a crash in between leaves only
//! something that has no record, which the garbage collector removes.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    snapshot::{Backend, Commit, Info, Kind, Snapshotter, Usage},
};
use kevel_model::{Error, Filters, Labels, Mount, Result, apply_label_fieldpaths};

use crate::{
    check,
    core::{Core, Draft, missing},
    event,
    gc::label::let_go,
    record::Snapshot,
    shelf::key,
    state::Snapshots,
};

/// The label by which a client tells a remote snapshotter which committed snapshot it is about to unpack. The backend
/// answers "already exists" when it has it already, under the same label.
pub(crate) const LABEL_TARGET: &str = "containerd.io/snapshot.ref";
/// Labels that are for the backend too.
const INHERITED: &str = "containerd.io/snapshot/";

pub(crate) struct Store {
    pub(crate) core: Arc<Core>,
    pub(crate) name: String,
    pub(crate) backend: Snapshotter,
}

/// A snapshot to be made.
struct New<'a> {
    kind: Kind,
    key: &'a str,
    parent: &'a str,
    labels: Labels,
}

#[async_trait]
impl Backend for Store {
    async fn stat(&self, scope: &Scope, key: &str) -> Result<Info> {
        Ok(self.find(scope, key)?.info.clone())
    }

    async fn update(&self, scope: &Scope, info: Info, fieldpaths: &[String]) -> Result<Info> {
        let found = self.find(scope, &info.name)?;
        let (path, fieldpaths) = (self.key(scope, &info.name), fieldpaths.to_vec());
        let updated = self
            .core
            .change(&scope.namespace, move |draft| {
                let old = draft.get::<Snapshots>(&path, &info.name)?;
                let mut snapshot = Snapshot::clone(&old);
                apply_label_fieldpaths(&mut snapshot.info.labels, &info.labels, &fieldpaths)?;
                check::labels(&snapshot.info.labels)?;
                snapshot.info.updated_at = draft.now;
                let info = snapshot.info.clone();
                draft.put::<Snapshots>(&path, snapshot);
                if let_go(&old.info.labels, &info.labels) {
                    draft.dirty();
                }
                Ok(info)
            })
            .await?;
        self.inherit(scope, &found, &updated).await?;
        Ok(updated)
    }

    async fn usage(&self, scope: &Scope, key: &str) -> Result<Usage> {
        self.backend.usage(scope, &self.find(scope, key)?.backend).await
    }

    async fn mounts(&self, scope: &Scope, key: &str) -> Result<Vec<Mount>> {
        let snapshot = self.find(scope, key)?;
        if snapshot.info.kind == Kind::Committed {
            return Err(Error::failed_precondition(format!("snapshot {key:?} is committed and has no mounts")));
        }
        self.backend.mounts(scope, &snapshot.backend).await
    }

    async fn prepare(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.make(scope, New { kind: Kind::Active, key, parent, labels }).await
    }

    async fn view(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.make(scope, New { kind: Kind::View, key, parent, labels }).await
    }

    async fn commit(&self, scope: &Scope, name: &str, key: &str, commit: Commit) -> Result<()> {
        check::name("snapshot name", name)?;
        check::labels(&commit.labels)?;
        self.vacant(scope, name).await?;
        let active = self.find(scope, key)?;
        if active.info.kind != Kind::Active {
            return Err(Error::failed_precondition(format!("snapshot {key:?} is not active and can't be committed")));
        }
        let parent = commit.parent.clone().unwrap_or_else(|| active.info.parent.clone());
        let rebased = commit.parent.as_deref().filter(|parent| !parent.is_empty());
        let rebased = rebased.map(|parent| self.parent(scope, parent)).transpose()?;
        let backend = self.core.backend_name(&scope.namespace, name);
        let _reserved = self.core.reserved.share(&backend).await;
        let inner = Commit { labels: inherited(&commit.labels), parent: rebased };
        self.backend.commit(scope, &backend, &active.backend, inner).await?;
        let now = SystemTime::now();
        let (name, labels) = (name.to_owned(), commit.labels);
        let info = Info { name, parent, kind: Kind::Committed, created_at: now, updated_at: now, labels };
        let committed = Snapshot { info, backend: backend.clone() };
        let recorded = self.record_commit(scope, key, committed.clone()).await;
        if let Err(error) = &recorded {
            tracing::warn!(snapshot = %backend, "committed snapshot is not recorded and is left to the collector");
            if error.is_already_exists() {
                self.vacant(scope, &committed.info.name).await?; // lost a race: the winner's serves this lease too
            }
        }
        recorded
    }

    async fn remove(&self, scope: &Scope, key: &str) -> Result<()> {
        let (lease, snapshotter, name, path) = (scope.clone(), self.name.clone(), key.to_owned(), self.key(scope, key));
        let snapshot = self
            .core
            .change(&scope.namespace, move |draft| {
                let snapshot = draft.get::<Snapshots>(&path, &name)?;
                let mut others = draft.state.snapshots.under(&draft.key(&[&snapshotter]));
                if let Some((_, child)) = others.find(|(_, other)| other.info.parent == name) {
                    let child = &child.info.name;
                    return Err(Error::failed_precondition(format!("snapshot {name:?} has a child, {child:?}")));
                }
                draft.remove::<Snapshots>(&path);
                draft.unlease(&lease, &format!("snapshots/{snapshotter}"), &name);
                draft.event("/snapshot/remove", event::snapshot_remove(&snapshotter, &name));
                Ok(snapshot)
            })
            .await?;
        // The space is wanted back now; what fails here the garbage collector tries again.
        if let Err(error) = self.backend.remove(scope, &snapshot.backend).await
            && !error.is_not_found()
        {
            tracing::warn!(snapshot = %snapshot.backend, error = %error.chain(), "snapshot is left to the collector");
        }
        Ok(())
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>> {
        let state = self.core.state();
        let snapshots = state.snapshots.under(&key(&scope.namespace, &[&self.name]));
        let matching = snapshots.filter(|(_, snapshot)| filters.matches(&snapshot.info));
        Ok(matching.map(|(_, snapshot)| snapshot.info.clone()).collect())
    }

    async fn cleanup(&self, scope: &Scope) -> Result<()> {
        self.backend.cleanup(scope).await
    }
}

impl Store {
    fn key(&self, scope: &Scope, name: &str) -> String {
        key(&scope.namespace, &[&self.name, name])
    }

    fn find(&self, scope: &Scope, name: &str) -> Result<Arc<Snapshot>> {
        let state = self.core.state();
        state.snapshots.get(&self.key(scope, name)).cloned().ok_or_else(|| missing::<Snapshots>(name))
    }

    /// Refuses a name that is taken. Whoever wanted to make that under a lease counts on it from here on.
    async fn vacant(&self, scope: &Scope, name: &str) -> Result<()> {
        if self.find(scope, name).is_err() {
            return Ok(());
        }
        let exists = Error::already_exists(format!("snapshot {name:?} already exists"));
        if scope.lease.is_none() {
            return Err(exists);
        }
        let (lease, snapshotter) = (scope.clone(), self.name.clone());
        let (path, name) = (self.key(scope, name), name.to_owned());
        let leased = self.core.change(&scope.namespace, move |draft| {
            let found = draft.get::<Snapshots>(&path, &name).is_ok();
            if found {
                draft.lease(&lease, &format!("snapshots/{snapshotter}"), &name)?;
            }
            Ok(found)
        });
        if leased.await? { Err(exists) } else { Ok(()) }
    }

    /// The backend's name of a parent; empty for none.
    fn parent(&self, scope: &Scope, parent: &str) -> Result<String> {
        if parent.is_empty() {
            return Ok(String::new());
        }
        let found = self.find(scope, parent)?;
        match found.info.kind {
            Kind::Committed => Ok(found.backend.clone()),
            _ => Err(Error::invalid_argument(format!("parent snapshot {parent:?} is not committed"))),
        }
    }

    async fn make(&self, scope: &Scope, new: New<'_>) -> Result<Vec<Mount>> {
        check::name("snapshot key", new.key)?;
        check::labels(&new.labels)?;
        self.vacant(scope, new.key).await?;
        if let Some(target) = new.labels.get(LABEL_TARGET) {
            self.vacant(scope, target).await?;
        }
        let parent = self.parent(scope, new.parent)?;
        let backend = self.core.backend_name(&scope.namespace, new.key);
        let _reserved = self.core.reserved.share(&backend).await;
        // What the backend has from elsewhere has no name of ours; it is known by the target until it is recorded.
        let _adopting = match new.labels.get(LABEL_TARGET) {
            Some(target) => Some(self.core.reserved.share(target).await),
            None => None,
        };
        let labels = inherited(&new.labels);
        let made = match new.kind {
            Kind::View => self.backend.view(scope, &backend, &parent, labels).await,
            _ => self.backend.prepare(scope, &backend, &parent, labels).await,
        };
        let mounts = match (made, new.labels.get(LABEL_TARGET)) {
            (Err(error), Some(target)) if error.is_already_exists() => {
                self.adopt(scope, target, &parent, &new).await?;
                return Err(error);
            }
            (made, _) => made?,
        };
        let recorded = self.record(scope, &new, backend.clone()).await;
        if recorded.is_err() {
            // Whoever lost a race for the key, or whose lease is gone, leaves nothing behind.
            if let Err(error) = self.backend.remove(scope, &backend).await {
                tracing::warn!(snapshot = %backend, error = %error.chain(), "snapshot is left to the collector");
            }
        }
        recorded.map(|()| mounts)
    }

    /// Records a snapshot that the backend has made.
    async fn record(&self, scope: &Scope, new: &New<'_>, backend: String) -> Result<()> {
        let (lease, snapshotter, path) = (scope.clone(), self.name.clone(), self.key(scope, new.key));
        let (kind, labels) = (new.kind, new.labels.clone());
        let (name, parent) = (new.key.to_owned(), new.parent.to_owned());
        self.core
            .change(&scope.namespace, move |draft| {
                draft.vacant::<Snapshots>(&path, &name)?;
                check_parent(draft, &snapshotter, &parent)?;
                draft.lease(&lease, &format!("snapshots/{snapshotter}"), &name)?;
                draft.event("/snapshot/prepare", event::snapshot_prepare(&snapshotter, &name, &parent));
                let info = Info { name, parent, kind, created_at: draft.now, updated_at: draft.now, labels };
                draft.put::<Snapshots>(&path, Snapshot { info, backend });
                Ok(())
            })
            .await
    }

    /// Records a snapshot that the backend has made of an active one, in place of that.
    async fn record_commit(&self, scope: &Scope, key: &str, snapshot: Snapshot) -> Result<()> {
        let (lease, snapshotter, old) = (scope.clone(), self.name.clone(), key.to_owned());
        let (path, old_path) = (self.key(scope, &snapshot.info.name), self.key(scope, key));
        self.core
            .change(&scope.namespace, move |draft| {
                let name = snapshot.info.name.clone();
                draft.vacant::<Snapshots>(&path, &name)?;
                check_parent(draft, &snapshotter, &snapshot.info.parent)?;
                let kind = format!("snapshots/{snapshotter}");
                draft.lease(&lease, &kind, &name)?;
                draft.unlease(&lease, &kind, &old);
                draft.put::<Snapshots>(&path, snapshot);
                draft.remove::<Snapshots>(&old_path);
                draft.event("/snapshot/commit", event::snapshot_commit(&snapshotter, &old, &name));
                Ok(())
            })
            .await
    }

    /// Records a committed snapshot that the backend has from elsewhere, if it has it.
    async fn adopt(&self, scope: &Scope, target: &str, parent: &str, new: &New<'_>) -> Result<()> {
        let filter = format!("labels.{LABEL_TARGET:?}=={target:?}");
        let found = self.backend.list(scope, &Filters::parse(&[filter])?).await?;
        let Some(found) = found.into_iter().find(|info| info.kind == Kind::Committed && info.parent == parent) else {
            return Ok(());
        };
        let (lease, snapshotter, path) = (scope.clone(), self.name.clone(), self.key(scope, target));
        let (target, parent, labels) = (target.to_owned(), new.parent.to_owned(), new.labels.clone());
        self.core
            .change(&scope.namespace, move |draft| {
                if draft.state.snapshots.get(&path).is_some() {
                    return Ok(());
                }
                check_parent(draft, &snapshotter, &parent)?;
                draft.lease(&lease, &format!("snapshots/{snapshotter}"), &target)?;
                let info = Info {
                    name: target,
                    parent,
                    kind: Kind::Committed,
                    created_at: draft.now,
                    updated_at: draft.now,
                    labels,
                };
                draft.put::<Snapshots>(&path, Snapshot { info, backend: found.name });
                Ok(())
            })
            .await
    }

    /// Passes changed labels on to the backend, where they are for it.
    async fn inherit(&self, scope: &Scope, old: &Snapshot, new: &Info) -> Result<()> {
        let (before, after) = (inherited(&old.info.labels), inherited(&new.labels));
        if before == after {
            return Ok(());
        }
        let changed = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
        let fieldpaths: Vec<_> = changed.map(|key| format!("labels.{key}")).collect();
        let info = Info { name: old.backend.clone(), labels: after, ..new.clone() };
        self.backend.update(scope, info, &fieldpaths).await.map(drop)
    }
}

/// Refuses to record a snapshot whose parent went away while the backend worked.
fn check_parent(draft: &Draft<'_, '_>, snapshotter: &str, parent: &str) -> Result<()> {
    if !parent.is_empty() {
        draft.get::<Snapshots>(&draft.key(&[snapshotter, parent]), parent)?;
    }
    Ok(())
}

fn inherited(labels: &Labels) -> Labels {
    let ours = |key: &str| key == LABEL_TARGET || key.starts_with(INHERITED);
    labels.iter().filter(|(key, _)| ours(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}
