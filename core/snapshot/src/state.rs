//! What is known of snapshots: the database is the truth, an index in memory answers every read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use kevel_contract::snapshot::{Commit, Kind, Usage};
use kevel_database::{Batch, Database};
use kevel_model::{Labels, Result, apply_label_fieldpaths};

use crate::{
    error::Error,
    row::{CHILDREN, Child, NUMBERS, Number, Row, SCHEMA, SNAPSHOTS, child_key, now, store_kind},
};

/// Rows by key or name.
pub(crate) type Rows = BTreeMap<String, Arc<Row>>;

/// The state of a snapshotter. Cheap to clone.
#[derive(Clone)]
pub(crate) struct State {
    database: Database,
    index: Arc<Mutex<Index>>,
    last: Arc<AtomicU64>,
}

#[derive(Default)]
struct Index {
    rows: Rows,
    /// Numbers whose directory is made and whose record is not yet.
    pending: BTreeSet<u64>,
}

/// A snapshot and the numbers of its parents, top first.
pub(crate) struct Chain {
    pub(crate) row: Arc<Row>,
    pub(crate) parents: Vec<u64>,
}

/// What a snapshotter knows of a commit besides what its caller wants.
pub(crate) struct Facts {
    /// What the snapshot uses.
    pub(crate) usage: Usage,
    /// The boot in which it is committed, its files not being on disk yet.
    pub(crate) boot: String,
    /// Whether the caller may choose the parent now.
    pub(crate) rebases: bool,
}

/// A number that nobody else has. Until it is dropped its directory is not taken for a leftover.
pub(crate) struct Reserved {
    pub(crate) number: u64,
    index: Arc<Mutex<Index>>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        lock(&self.index).pending.remove(&self.number);
    }
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(error: Error) -> kevel_model::Error {
    error.into()
}

impl State {
    /// Opens the database. New snapshots get numbers above `used` and all that were ever recorded. Blocks.
    pub(crate) fn open(path: &Path, used: u64) -> Result<Self> {
        let database = Database::open(path, &SCHEMA)?;
        let (mut rows, mut recorded) = (Rows::new(), 0);
        database.read(|snapshot| {
            recorded = snapshot.get(NUMBERS, "")?.unwrap_or_default().value;
            snapshot.each(SNAPSHOTS, |key, row| {
                let key = String::from_utf8_lossy(key).into_owned();
                rows.insert(key, Arc::new(row));
                Ok(())
            })
        })?;
        let last = recorded.max(used);
        let index = Arc::new(Mutex::new(Index { rows, pending: BTreeSet::new() }));
        Ok(Self { database, index, last: Arc::new(last.into()) })
    }

    /// A number for a new snapshot.
    pub(crate) fn reserve(&self) -> Reserved {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.index).pending.insert(number);
        Reserved { number, index: Arc::clone(&self.index) }
    }

    /// Whether a directory of this number belongs to a snapshot, or will.
    pub(crate) fn uses(&self) -> BTreeSet<u64> {
        let index = lock(&self.index);
        index.rows.values().map(|row| row.number).chain(index.pending.iter().copied()).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Result<Arc<Row>, Error> {
        lock(&self.index).rows.get(name).cloned().ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    /// Every row at one moment.
    pub(crate) fn rows(&self) -> Rows {
        lock(&self.index).rows.clone()
    }

    pub(crate) fn chain(&self, name: &str) -> Result<Chain, Error> {
        let index = lock(&self.index);
        let find = |name: &str| index.rows.get(name).ok_or_else(|| Error::NotFound(name.to_owned()));
        let row = find(name)?;
        let mut parents = vec![];
        let mut parent = row.parent.as_str();
        while !parent.is_empty() {
            let next = find(parent)?;
            parents.push(next.number);
            parent = next.parent.as_str();
        }
        Ok(Chain { row: Arc::clone(row), parents })
    }

    /// Runs a change and shows its effect in the index when it is durable. The change answers the rows it set, or
    /// removed where there is none.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<(Vec<(String, Option<Arc<Row>>)>, T)> + Send + 'static,
    ) -> Result<T> {
        let index = Arc::clone(&self.index);
        self.database
            .write(move |batch| {
                let (changed, value) = change(batch)?;
                for (name, row) in &changed {
                    match row {
                        Some(row) => batch.put(SNAPSHOTS, name.as_str(), row.as_ref()),
                        None => batch.delete(SNAPSHOTS, name.as_str()),
                    }
                }
                batch.after(move |durable| {
                    if !durable {
                        return;
                    }
                    let mut index = lock(&index);
                    for (name, row) in changed {
                        match row {
                            Some(row) => index.rows.insert(name, row),
                            None => index.rows.remove(&name),
                        };
                    }
                });
                Ok(value)
            })
            .await
    }

    /// Records a new snapshot on a parent that must have this number.
    pub(crate) async fn create(&self, key: &str, row: Row, parent: Option<u64>) -> Result<()> {
        let key = key.to_owned();
        self.change(move |batch| {
            if batch.get(SNAPSHOTS, &key)?.is_some() {
                return Err(Error::Exists(key).into());
            }
            if let Some(number) = parent {
                let found = committed(batch, &row.parent)?;
                if found.number != number {
                    return Err(Error::NotFound(row.parent).into()); // removed and made again meanwhile
                }
                batch.put(CHILDREN, child_key(number, row.number), &Child { name: key.clone() });
            }
            let highest = batch.get(NUMBERS, "")?.unwrap_or_default().value.max(row.number);
            batch.put(NUMBERS, "", &Number { value: highest });
            Ok((vec![(key, Some(Arc::new(row)))], ()))
        })
        .await
    }

    /// Turns the active snapshot `key` into the committed `name`.
    pub(crate) async fn commit(&self, name: &str, key: &str, commit: Commit, facts: Facts) -> Result<()> {
        let (name, key) = (name.to_owned(), key.to_owned());
        self.change(move |batch| {
            let row = batch.get(SNAPSHOTS, &key)?.ok_or_else(|| encode(Error::NotFound(key.clone())))?;
            if row.kind() != Kind::Active {
                return Err(Error::NotActive(key).into());
            }
            if batch.get(SNAPSHOTS, &name)?.is_some() {
                return Err(Error::Exists(name).into());
            }
            let parent = match commit.parent.filter(|parent| !parent.is_empty() && *parent != row.parent) {
                None => row.parent,
                Some(parent) if row.parent.is_empty() && facts.rebases => parent,
                Some(want) => return Err(Error::OtherParent { key, have: row.parent, want }.into()),
            };
            if !parent.is_empty() {
                let found = committed(batch, &parent)?;
                batch.put(CHILDREN, child_key(found.number, row.number), &Child { name: name.clone() });
            }
            let made = Row {
                size: facts.usage.size,
                inodes: facts.usage.inodes,
                unsynced: facts.boot,
                ..Row::new(row.number, Kind::Committed, &parent, commit.labels)
            };
            Ok((vec![(key, None), (name, Some(Arc::new(made)))], ()))
        })
        .await
    }

    /// Forgets a snapshot without children; answers its number.
    pub(crate) async fn remove(&self, name: &str) -> Result<u64> {
        let name = name.to_owned();
        self.change(move |batch| {
            let row = batch.get(SNAPSHOTS, &name)?.ok_or_else(|| encode(Error::NotFound(name.clone())))?;
            if !batch.prefix(CHILDREN, row.number.to_be_bytes())?.is_empty() {
                return Err(Error::Children(name).into());
            }
            if !row.parent.is_empty()
                && let Some(parent) = batch.get(SNAPSHOTS, &row.parent)?
            {
                batch.delete(CHILDREN, child_key(parent.number, row.number));
            }
            Ok((vec![(name, None)], row.number))
        })
        .await
    }

    /// Changes labels by field paths; answers the new row.
    pub(crate) async fn update(&self, name: &str, labels: Labels, fieldpaths: &[String]) -> Result<Arc<Row>> {
        let (name, fieldpaths) = (name.to_owned(), fieldpaths.to_owned());
        self.change(move |batch| {
            let mut row = batch.get(SNAPSHOTS, &name)?.ok_or_else(|| encode(Error::NotFound(name.clone())))?;
            apply_label_fieldpaths(&mut row.labels, &labels, &fieldpaths)?;
            row.updated = now();
            let row = Arc::new(row);
            Ok((vec![(name, Some(Arc::clone(&row)))], row))
        })
        .await
    }

    /// Notes that the files of these numbers are on disk.
    pub(crate) async fn synced(&self, numbers: BTreeSet<u64>) -> Result<()> {
        let rows = self.rows();
        self.change(move |batch| {
            let mut changed = vec![];
            for name in rows.into_iter().filter(|(_, row)| numbers.contains(&row.number)).map(|(name, _)| name) {
                let Some(mut row) = batch.get(SNAPSHOTS, &name)?.filter(|row| numbers.contains(&row.number)) else {
                    continue;
                };
                row.unsynced.clear();
                changed.push((name, Some(Arc::new(row))));
            }
            Ok((changed, ()))
        })
        .await
    }

    /// Forgets snapshots together with their links, children or not.
    pub(crate) async fn forget(&self, names: Vec<String>) -> Result<()> {
        self.change(move |batch| {
            let mut changed = vec![];
            for name in names {
                let Some(row) = batch.get(SNAPSHOTS, &name)? else { continue };
                if let Some(parent) = batch.get(SNAPSHOTS, &row.parent)? {
                    batch.delete(CHILDREN, child_key(parent.number, row.number));
                }
                for (key, _) in batch.prefix(CHILDREN, row.number.to_be_bytes())? {
                    batch.delete(CHILDREN, key);
                }
                changed.push((name, None));
            }
            Ok((changed, ()))
        })
        .await
    }
}

fn committed(batch: &Batch<'_>, name: &str) -> Result<Row> {
    let row = batch.get(SNAPSHOTS, name)?.ok_or_else(|| encode(Error::NotFound(name.to_owned())))?;
    if row.kind != store_kind(Kind::Committed) {
        return Err(Error::Parent(name.to_owned()).into());
    }
    Ok(row)
}
