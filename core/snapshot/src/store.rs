//! A snapshotter over a driver: the contract, without how a snapshot is made of directories and mounts.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    snapshot::{Backend, Commit, Info, Kind, Usage},
};
use kevel_model::{Filters, Labels, Mount, Result, check_labels};
use tokio::sync::{Mutex, Notify};

use crate::{
    delete::delete,
    directory::Directory,
    error::{self, Error, MAX_NAME},
    recovery,
    row::Row,
    state::{Facts, State},
    sync, usage,
};

/// How snapshots of one kind are made of directories and mounts. Its methods block.
pub trait Driver: Send + Sync + 'static {
    /// Makes the directory of a new snapshot, all or nothing is not required: the caller deletes it when this fails.
    fn make(&self, dir: &Path, new: &New<'_>) -> Result<(), Error>;
    /// Where in a snapshot's directory its own files are.
    fn files(&self, dir: &Path) -> PathBuf;
    /// The mounts of an active snapshot or view.
    fn mounts(&self, placed: &Placed<'_>) -> Vec<Mount>;
    /// A label that every snapshot shows and none stores.
    fn shown_label(&self, dir: &Path) -> Option<(&'static str, String)>;
    /// Whether a snapshot can get its parent at commit.
    fn rebases(&self) -> bool;
}

/// A snapshot to be made.
pub struct New<'a> {
    /// Active or view.
    pub kind: Kind,
    /// Directory of the parent.
    pub parent: Option<PathBuf>,
    /// Labels asked for.
    pub labels: &'a Labels,
}

/// A snapshot that is there.
pub struct Placed<'a> {
    /// Active or view.
    pub kind: Kind,
    /// Its directory.
    pub dir: PathBuf,
    /// Directories of its parents, top first.
    pub parents: Vec<PathBuf>,
    /// Its labels.
    pub labels: &'a Labels,
}

/// A snapshotter in a directory. Cheap to clone.
pub struct Snapshots<D>(Arc<Inner<D>>);

impl<D> Clone for Snapshots<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(crate) struct Inner<D> {
    pub(crate) root: PathBuf,
    pub(crate) state: State,
    directory: Directory,
    driver: D,
    boot: String,
    /// Delete before `remove` returns.
    sync_remove: bool,
    committed: Arc<Notify>,
    removed: Arc<Notify>,
    /// Held by whoever deletes: one at a time is enough for the disk.
    sweeping: Mutex<()>,
}

impl<D> Inner<D> {
    fn wake(&self) {
        self.committed.notify_one();
        self.removed.notify_one();
    }
}

impl<D> Drop for Inner<D> {
    /// Lets the tasks find out.
    fn drop(&mut self) {
        self.wake();
    }
}

/// Deletes leftovers whenever it is woken, for as long as the store lives.
async fn sweep_when_woken<D: Driver>(store: Weak<Inner<D>>, wake: Arc<Notify>) {
    loop {
        wake.notified().await;
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = store.sweep().await {
            tracing::warn!(root = %store.root.display(), error = %error.chain(), "removed snapshots are left");
        }
    }
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> error::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Internal("file access of the snapshotter panicked").into()),
    }
}

impl<D: Driver> Snapshots<D> {
    pub(crate) async fn open(root: &Path, driver: D, sync_remove: bool) -> Result<Self> {
        let boot = sync::boot_id()?;
        Self::open_in_boot(root, driver, sync_remove, boot).await
    }

    pub(crate) async fn open_in_boot(root: &Path, driver: D, sync_remove: bool, boot: String) -> Result<Self> {
        let root = root.to_owned();
        let path = root.clone();
        let (directory, state) = tokio::task::spawn_blocking(move || open_files(&path))
            .await
            .map_err(|_| Error::Internal("opening the snapshotter panicked"))??;
        recovery::recover(&state, &directory, &boot).await?;
        let (committed, removed) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (sync, sweep) = (Arc::clone(&committed), Arc::clone(&removed));
        let sweeping = Mutex::default();
        let inner = Inner { root, state, directory, driver, boot, sync_remove, committed, removed, sweeping };
        let store = Self(Arc::new(inner));
        tokio::spawn(sync::run(Arc::downgrade(&store.0), sync));
        tokio::spawn(sweep_when_woken(Arc::downgrade(&store.0), sweep));
        // What the last run committed and removed, and did not get to finish.
        store.0.wake();
        Ok(store)
    }

    /// Makes everything committed durable; call before the process ends by itself.
    pub async fn close(&self) -> Result<()> {
        sync::sync(&self.0.state, &self.0.root).await
    }

    async fn create(&self, kind: Kind, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        check_name("snapshot key", key)?;
        check_labels(&labels)?;
        let (key, parent) = (key.to_owned(), parent.to_owned());
        // A task of its own: a caller that hangs up leaves no directory behind.
        let inner = Arc::clone(&self.0);
        let made = tokio::spawn(async move { inner.create(kind, key, parent, labels).await });
        made.await.map_err(|_| Error::Internal("making a snapshot panicked"))?
    }
}

fn open_files(root: &Path) -> Result<(Directory, State)> {
    let directory = Directory::open(root)?;
    let path = root.join("snapshots.db");
    if !path.exists() && !directory.is_empty()? {
        return Err(Error::Foreign(root.display().to_string()).into());
    }
    let used = directory.highest()?;
    Ok((directory, State::open(&path, used)?))
}

fn check_name(field: &'static str, name: &str) -> error::Result<()> {
    match name.len() {
        1..=MAX_NAME => Ok(()),
        length => Err(Error::Name { field, length }),
    }
}

impl<D: Driver> Inner<D> {
    async fn create(self: Arc<Self>, kind: Kind, key: String, parent: String, labels: Labels) -> Result<Vec<Mount>> {
        if self.state.get(&key).is_ok() {
            return Err(Error::Exists(key).into()); // cheaply; the record decides below
        }
        let parent_number = match parent.as_str() {
            "" => None,
            parent => {
                let row = self.state.get(parent)?;
                if row.kind() != Kind::Committed {
                    return Err(Error::Parent(parent.to_owned()).into());
                }
                Some(row.number)
            }
        };
        let reserved = self.state.reserve();
        let number = reserved.number;
        let (inner, new_labels) = (Arc::clone(&self), labels.clone());
        let made = blocking(move || {
            let parent = parent_number.map(|number| inner.directory.of(number));
            inner.driver.make(&inner.directory.of(number), &New { kind, parent, labels: &new_labels })
        })
        .await;
        let recorded = match made {
            Ok(()) => self.state.create(&key, Row::new(number, kind, &parent, labels), parent_number).await,
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            let dir = self.directory.of(number);
            if let Err(left) = blocking(move || delete(&dir)).await {
                tracing::warn!(number, error = %left.chain(), "directory of a failed snapshot is left");
            }
            return Err(error);
        }
        drop(reserved);
        self.mounts_of(&key)
    }

    fn mounts_of(&self, key: &str) -> Result<Vec<Mount>> {
        let chain = self.state.chain(key)?;
        let kind = chain.row.kind();
        if kind == Kind::Committed {
            return Err(Error::NotActive(key.to_owned()).into());
        }
        Ok(self.driver.mounts(&Placed {
            kind,
            dir: self.directory.of(chain.row.number),
            parents: chain.parents.into_iter().map(|number| self.directory.of(number)).collect(),
            labels: &chain.row.labels,
        }))
    }

    fn info(&self, name: &str, row: &Row) -> Info {
        let mut info = row.info(name);
        if let Some((key, value)) = self.driver.shown_label(&self.directory.of(row.number)) {
            info.labels.insert(key.to_owned(), value);
        }
        info
    }

    async fn measure(self: &Arc<Self>, number: u64) -> Result<Usage> {
        let inner = Arc::clone(self);
        blocking(move || usage::measure(&inner.driver.files(&inner.directory.of(number)))).await
    }

    async fn sweep(self: &Arc<Self>) -> Result<()> {
        let _one = self.sweeping.lock().await;
        let inner = Arc::clone(self);
        blocking(move || inner.directory.sweep(|| inner.state.uses())).await
    }
}

#[async_trait]
impl<D: Driver> Backend for Snapshots<D> {
    async fn stat(&self, _: &Scope, key: &str) -> Result<Info> {
        Ok(self.0.info(key, &*self.0.state.get(key)?))
    }

    async fn update(&self, _: &Scope, mut info: Info, fieldpaths: &[String]) -> Result<Info> {
        check_labels(&info.labels)?;
        if let Some((shown, _)) = self.0.driver.shown_label(Path::new("")) {
            info.labels.remove(shown);
        }
        let row = self.0.state.update(&info.name, info.labels, fieldpaths).await?;
        Ok(self.0.info(&info.name, &row))
    }

    async fn usage(&self, _: &Scope, key: &str) -> Result<Usage> {
        let row = self.0.state.get(key)?;
        match row.kind() {
            Kind::Active => self.0.measure(row.number).await,
            Kind::View | Kind::Committed => Ok(row.usage()),
        }
    }

    async fn mounts(&self, _: &Scope, key: &str) -> Result<Vec<Mount>> {
        self.0.mounts_of(key)
    }

    async fn prepare(&self, _: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.create(Kind::Active, key, parent, labels).await
    }

    async fn view(&self, _: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.create(Kind::View, key, parent, labels).await
    }

    async fn commit(&self, _: &Scope, name: &str, key: &str, commit: Commit) -> Result<()> {
        check_name("snapshot name", name)?;
        check_labels(&commit.labels)?;
        let row = self.0.state.get(key)?;
        if row.kind() != Kind::Active {
            return Err(Error::NotActive(key.to_owned()).into());
        }
        let usage = self.0.measure(row.number).await?;
        let facts = Facts { usage, boot: self.0.boot.clone(), rebases: self.0.driver.rebases() };
        self.0.state.commit(name, key, commit, facts).await?;
        self.0.committed.notify_one();
        Ok(())
    }

    async fn remove(&self, _: &Scope, key: &str) -> Result<()> {
        let number = self.0.state.remove(key).await?;
        let inner = Arc::clone(&self.0);
        blocking(move || inner.directory.put_aside(number)).await?;
        if self.0.sync_remove {
            return self.0.sweep().await;
        }
        self.0.removed.notify_one();
        Ok(())
    }

    async fn list(&self, _: &Scope, filters: &Filters) -> Result<Vec<Info>> {
        let rows = self.0.state.rows();
        let infos = rows.iter().map(|(name, row)| self.0.info(name, row));
        Ok(infos.filter(|info| filters.matches(info)).collect())
    }

    async fn cleanup(&self, _: &Scope) -> Result<()> {
        self.0.sweep().await
    }
}
