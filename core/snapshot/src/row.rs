//! What is stored of a snapshot.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kevel_contract::snapshot::{Info, Kind, Usage};
use kevel_database::{Schema, Table};
use kevel_model::Labels;

/// Of this version are the tables below.
pub(crate) const SCHEMA: Schema = Schema::first("snapshots");

/// Snapshots by key or name.
pub(crate) const SNAPSHOTS: Table<Row> = Table::new("snapshots");

/// Children by the two numbers of parent and child, both big-endian.
pub(crate) const CHILDREN: Table<Child> = Table::new("children");

/// Under the empty key: the highest number ever given to a snapshot.
pub(crate) const NUMBERS: Table<Number> = Table::new("numbers");

/// One snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Row {
    /// Names its directory; never used twice.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// 1 view, 2 active, 3 committed.
    #[prost(uint32, tag = "2")]
    pub(crate) kind: u32,
    /// Name of the parent; empty for none.
    #[prost(string, tag = "3")]
    pub(crate) parent: String,
    /// Nanoseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub(crate) created: u64,
    /// Nanoseconds since 1970.
    #[prost(uint64, tag = "5")]
    pub(crate) updated: u64,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(crate) labels: BTreeMap<String, String>,
    /// Bytes, of a committed one.
    #[prost(uint64, tag = "7")]
    pub(crate) size: u64,
    /// Inodes, of a committed one.
    #[prost(uint64, tag = "8")]
    pub(crate) inodes: u64,
    /// The boot in which it was committed, until its files are on disk; then empty.
    #[prost(string, tag = "9")]
    pub(crate) unsynced: String,
}

/// A link from a parent.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Child {
    /// Key or name of the child.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// A number.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
}

pub(crate) fn child_key(parent: u64, child: u64) -> Vec<u8> {
    [parent.to_be_bytes(), child.to_be_bytes()].concat()
}

/// Now, as rows hold time.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Row {
    pub(crate) fn new(number: u64, kind: Kind, parent: &str, labels: Labels) -> Self {
        let now = now();
        Self {
            number,
            kind: store_kind(kind),
            parent: parent.to_owned(),
            created: now,
            updated: now,
            labels,
            ..Self::default()
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.kind {
            1 => Kind::View,
            3 => Kind::Committed,
            _ => Kind::Active,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage { size: self.size, inodes: self.inodes }
    }

    pub(crate) fn info(&self, name: &str) -> Info {
        Info {
            name: name.to_owned(),
            parent: self.parent.clone(),
            kind: self.kind(),
            created_at: UNIX_EPOCH + Duration::from_nanos(self.created),
            updated_at: UNIX_EPOCH + Duration::from_nanos(self.updated),
            labels: self.labels.clone(),
        }
    }
}

pub(crate) fn store_kind(kind: Kind) -> u32 {
    match kind {
        Kind::View => 1,
        Kind::Active => 2,
        Kind::Committed => 3,
    }
}
