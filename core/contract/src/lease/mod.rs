//! Leases: what keeps objects from the garbage collector while nothing refers to them yet.

#[cfg(feature = "suite")]
pub mod suite;

use std::{borrow::Cow, time::SystemTime};

use async_trait::async_trait;
use kevel_model::{Adaptor, Filters, Labels, Result, filter};
use kevel_plugin::Kind;

use crate::{Scope, call::handle};

/// The lease manager: `io.containerd.lease.v1.manager`.
pub enum Leases {}

impl Kind for Leases {
    const TYPE: &'static str = "io.containerd.lease.v1";
    type Handle = LeaseManager;
}

/// The label that says when a lease ends by itself, as an RFC 3339 time.
pub const LABEL_EXPIRE: &str = "containerd.io/gc.expire";

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Identifier, unique in its namespace.
    pub id: String,
    /// When it was made.
    pub created_at: SystemTime,
    /// Its labels.
    pub labels: Labels,
}

impl Adaptor for Lease {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (name, []) if name == "id" => Some(self.id.as_str().into()),
            (name, key) if name == "labels" => filter::map_field(&self.labels, key),
            _ => None,
        }
    }
}

/// Something that a lease keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// `content`, `ingests`, `snapshots/<snapshotter>`, `images`, `mounts`.
    pub kind: String,
    /// Digest, reference, key or name.
    pub id: String,
}

/// A lease manager, for whoever writes one. Deleting a lease frees what only it kept; with `sync` the garbage is
/// collected before the answer.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Makes a lease; an empty id gets one of the manager's.
    async fn create(&self, scope: &Scope, id: &str, labels: Labels) -> Result<Lease>;
    /// Ends a lease.
    async fn delete(&self, scope: &Scope, id: &str, sync: bool) -> Result<()>;
    /// All leases that match.
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Lease>>;
    /// Adds something to a lease.
    async fn add(&self, scope: &Scope, id: &str, resource: Resource) -> Result<()>;
    /// Takes something out of a lease.
    async fn remove(&self, scope: &Scope, id: &str, resource: Resource) -> Result<()>;
    /// Everything that a lease keeps.
    async fn resources(&self, scope: &Scope, id: &str) -> Result<Vec<Resource>>;
}

handle! {
    /// A lease manager, for whoever uses one.
    LeaseManager over Backend {
        /// Makes a lease.
        fn create(scope: &Scope, id: &str, labels: Labels) -> Lease;
        /// Ends a lease.
        fn delete(scope: &Scope, id: &str, sync: bool) -> ();
        /// All leases that match.
        fn list(scope: &Scope, filters: &Filters) -> Vec<Lease>;
        /// Adds something to a lease.
        fn add(scope: &Scope, id: &str, resource: Resource) -> ();
        /// Takes something out of a lease.
        fn remove(scope: &Scope, id: &str, resource: Resource) -> ();
        /// Everything that a lease keeps.
        fn resources(scope: &Scope, id: &str) -> Vec<Resource>;
    }
}
