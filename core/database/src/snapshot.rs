//! What a reader sees: one commit, whole.

use kevel_model::Result;
use redb::{ReadableDatabase as _, ReadableTable as _};

use crate::{
    DatabaseError, Record, Table,
    table::{Definition, definition},
};

type Open = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The database as of one commit.
pub struct Snapshot(redb::ReadTransaction);

impl Snapshot {
    pub(crate) fn new(file: &redb::Database) -> Result<Self, DatabaseError> {
        Ok(Self(file.begin_read().map_err(DatabaseError::access("starting a read"))?))
    }

    fn table(&self, table: Definition) -> Result<Option<Open>, DatabaseError> {
        match self.0.open_table(table) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(DatabaseError::access("opening a table")(error)),
        }
    }

    /// The record under `key`.
    pub fn get<V: Record>(&self, table: Table<V>, key: impl AsRef<[u8]>) -> Result<Option<V>> {
        let Some(open) = self.table(definition(table.name))? else { return Ok(None) };
        let value = open.get(key.as_ref()).map_err(DatabaseError::access("reading a record"))?;
        Ok(value.map(|value| table.decode(value.value())).transpose()?)
    }

    /// Every record, in order of keys.
    pub fn each<V: Record>(&self, table: Table<V>, mut visit: impl FnMut(&[u8], V) -> Result<()>) -> Result<()> {
        let Some(open) = self.table(definition(table.name))? else { return Ok(()) };
        for entry in open.iter().map_err(DatabaseError::access("reading a table"))? {
            let (key, value) = entry.map_err(DatabaseError::access("reading a table"))?;
            visit(key.value(), table.decode(value.value())?)?;
        }
        Ok(())
    }
}
