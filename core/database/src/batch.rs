//! What a writer changes: puts and deletes that are kept aside until the whole piece of work has succeeded.

use std::collections::BTreeMap;

use kevel_model::Result;
use redb::ReadableTable as _;

use crate::{DatabaseError, Record, Table, table::definition};

/// What runs when the commit is done, with whether it succeeded.
pub(crate) type Hook = Box<dyn FnOnce(bool) + Send>;

type Changes = BTreeMap<(&'static str, Vec<u8>), Option<Vec<u8>>>;

/// The changes of one piece of work. Reads see them on top of everything written before.
pub struct Batch<'t> {
    transaction: &'t redb::WriteTransaction,
    changes: Changes,
    hooks: Vec<Hook>,
}

impl<'t> Batch<'t> {
    pub(crate) fn new(transaction: &'t redb::WriteTransaction) -> Self {
        Self { transaction, changes: Changes::new(), hooks: Vec::new() }
    }

    /// The record under `key`.
    pub fn get<V: Record>(&self, table: Table<V>, key: impl AsRef<[u8]>) -> Result<Option<V>> {
        let key = key.as_ref();
        if let Some(change) = self.changes.get(&(table.name, key.to_vec())) {
            return Ok(change.as_ref().map(|bytes| table.decode(bytes)).transpose()?);
        }
        let open =
            self.transaction.open_table(definition(table.name)).map_err(DatabaseError::access("opening a table"))?;
        let value = open.get(key).map_err(DatabaseError::access("reading a record"))?;
        Ok(value.map(|value| table.decode(value.value())).transpose()?)
    }

    /// Every record whose key begins with `prefix`, in order of keys.
    pub fn prefix<V: Record>(&self, table: Table<V>, prefix: impl AsRef<[u8]>) -> Result<Vec<(Vec<u8>, V)>> {
        let prefix = prefix.as_ref();
        let mut found = BTreeMap::new();
        let open =
            self.transaction.open_table(definition(table.name)).map_err(DatabaseError::access("opening a table"))?;
        for entry in open.range(prefix..).map_err(DatabaseError::access("reading a table"))? {
            let (key, value) = entry.map_err(DatabaseError::access("reading a table"))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.insert(key.value().to_vec(), table.decode(value.value())?);
        }
        for ((name, key), change) in &self.changes {
            if *name != table.name || !key.starts_with(prefix) {
                continue;
            }
            match change {
                Some(bytes) => found.insert(key.clone(), table.decode(bytes)?),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().collect())
    }

    /// Stores a record, over the one that may be there.
    pub fn put<V: Record>(&mut self, table: Table<V>, key: impl Into<Vec<u8>>, value: &V) {
        self.changes.insert((table.name, key.into()), Some(value.encode_to_vec()));
    }

    /// Removes a record; none is fine.
    pub fn delete<V: Record>(&mut self, table: Table<V>, key: impl Into<Vec<u8>>) {
        self.changes.insert((table.name, key.into()), None);
    }

    /// Has `hook` run on the writer once the commit is done, before any caller is answered, with whether it succeeded.
    /// Hooks run in the order of the work they belong to; those of work that failed don't run.
    pub fn after(&mut self, hook: impl FnOnce(bool) + Send + 'static) {
        self.hooks.push(Box::new(hook));
    }

    /// Moves the changes into the transaction; answers whether there were any, and the hooks, which must run either way.
    pub(crate) fn apply(self) -> (Result<bool, DatabaseError>, Vec<Hook>) {
        let changed = !self.changes.is_empty();
        (store(self.transaction, self.changes).map(|()| changed), self.hooks)
    }
}

fn store(transaction: &redb::WriteTransaction, changes: Changes) -> Result<(), DatabaseError> {
    let mut open = None;
    for ((name, key), change) in changes {
        // Changes are ordered by table, so that each is opened once.
        if open.as_ref().is_none_or(|(current, _)| *current != name) {
            drop(open.take());
            let table = transaction.open_table(definition(name)).map_err(DatabaseError::access("opening a table"))?;
            open = Some((name, table));
        }
        let Some((_, table)) = &mut open else { continue };
        match change {
            Some(value) => drop(
                table.insert(key.as_slice(), value.as_slice()).map_err(DatabaseError::access("storing a record"))?,
            ),
            None => drop(table.remove(key.as_slice()).map_err(DatabaseError::access("removing a record"))?),
        }
    }
    Ok(())
}
