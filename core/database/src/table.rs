//! Tables: a name, and the type of the records in it.

use std::marker::PhantomData;

use crate::DatabaseError;

/// What a table holds: any protobuf message (`#[derive(prost::Message)]`). Never reuse a field number.
pub trait Record: prost::Message + Default {}

impl<M: prost::Message + Default> Record for M {}

/// A table. Declare it as a constant; it comes to be when something is first put into it. Keys are byte strings and
/// ordered as such.
pub struct Table<V> {
    pub(crate) name: &'static str,
    value: PhantomData<fn() -> V>,
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Table<V> {}

pub(crate) type Definition = redb::TableDefinition<'static, &'static [u8], &'static [u8]>;

impl<V: Record> Table<V> {
    /// The table called `name`, which is unique in its database.
    pub const fn new(name: &'static str) -> Self {
        Self { name, value: PhantomData }
    }

    pub(crate) fn decode(self, bytes: &[u8]) -> Result<V, DatabaseError> {
        V::decode(bytes).map_err(|source| DatabaseError::Decode { table: self.name, source })
    }
}

pub(crate) fn definition(name: &'static str) -> Definition {
    redb::TableDefinition::new(name)
}
