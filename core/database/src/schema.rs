//! Which tables a file holds, and in which version.

use kevel_model::Result;

use crate::{Batch, DatabaseError, Table};

/// What a database is for, and the version of its tables.
#[derive(Clone, Copy)]
pub struct Schema {
    /// What is stored, e.g. `metadata`. A file with another name is refused.
    pub name: &'static str,
    /// The version that this program writes; from 1.
    pub version: u64,
    /// Brings the tables from an older version (the first argument) to this one.
    pub migrate: fn(u64, &mut Batch<'_>) -> Result<()>,
}

/// The one record of the table `schema`.
#[derive(Clone, PartialEq, prost::Message)]
struct Stamp {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    version: u64,
}

const STAMP: Table<Stamp> = Table::new("schema");

impl Schema {
    /// A first version, with nothing to migrate from.
    pub const fn first(name: &'static str) -> Self {
        Self { name, version: 1, migrate: |_, _| Ok(()) }
    }

    pub(crate) fn apply(&self, file: &str, database: &redb::Database) -> Result<()> {
        let transaction = database.begin_write().map_err(DatabaseError::access("starting a write"))?;
        let mut batch = Batch::new(&transaction);
        let wanted = Stamp { name: self.name.to_owned(), version: self.version };
        match batch.get(STAMP, "")? {
            Some(found) if found == wanted => {
                drop(batch);
                return Ok(transaction.abort().map_err(DatabaseError::access("reading the schema"))?);
            }
            Some(found) if found.name != self.name => {
                return Err(
                    DatabaseError::Schema { name: file.to_owned(), found: found.name, wanted: self.name }.into()
                );
            }
            Some(found) if found.version > self.version => {
                let (found, known) = (found.version, self.version);
                return Err(DatabaseError::Newer { name: file.to_owned(), found, known }.into());
            }
            Some(found) => (self.migrate)(found.version, &mut batch)?,
            None => {}
        }
        batch.put(STAMP, "", &wanted);
        batch.apply().0?;
        transaction.commit().map_err(DatabaseError::access("storing the schema"))?;
        Ok(())
    }
}
