//! Containers: records of what could run, not processes.

#[cfg(feature = "suite")]
pub mod suite;

use std::{borrow::Cow, collections::BTreeMap, time::SystemTime};

use async_trait::async_trait;
use kevel_model::{Adaptor, Any, Filters, Labels, Result, filter};
use kevel_plugin::Kind;

use crate::{Scope, call::handle};

/// The container service: `io.containerd.service.v1.containers-service`.
pub enum ContainerService {}

impl Kind for ContainerService {
    const TYPE: &'static str = "io.containerd.service.v1";
    type Handle = ContainerStore;
}

/// The runtime that a container or sandbox is made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Runtime name (`io.containerd.runc.v2`) or absolute path of a shim.
    pub name: String,
    /// Options for the shim.
    pub options: Option<Any>,
}

/// A container's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Identifier, unique in its namespace.
    pub id: String,
    /// Its labels.
    pub labels: Labels,
    /// Name of the image it was made from; may be empty.
    pub image: String,
    /// The runtime.
    pub runtime: Runtime,
    /// The OCI spec, as JSON in a typed blob.
    pub spec: Option<Any>,
    /// The snapshotter of the root file system; may be empty.
    pub snapshotter: String,
    /// The snapshot of the root file system; may be empty.
    pub snapshot_key: String,
    /// When it was made; set by the store.
    pub created_at: SystemTime,
    /// When it changed last; set by the store.
    pub updated_at: SystemTime,
    /// What clients keep with it, by name.
    pub extensions: BTreeMap<String, Any>,
    /// The sandbox it belongs to; may be empty.
    pub sandbox: String,
}

impl Container {
    /// An empty record with an id.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            labels: Labels::new(),
            image: String::new(),
            runtime: Runtime::default(),
            spec: None,
            snapshotter: String::new(),
            snapshot_key: String::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            extensions: BTreeMap::new(),
            sandbox: String::new(),
        }
    }
}

impl Adaptor for Container {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (name, []) if name == "id" => Some(self.id.as_str().into()),
            (name, []) if name == "image" => Some(self.image.as_str().into()),
            (name, rest) if name == "runtime" => match rest {
                [field] if field == "name" => Some(self.runtime.name.as_str().into()),
                _ => None,
            },
            (name, []) if name == "sandbox_id" || name == "sandbox" => Some(self.sandbox.as_str().into()),
            (name, key) if name == "labels" => filter::map_field(&self.labels, key),
            _ => None,
        }
    }
}

/// A container store, for whoever writes one. The id, runtime name, image-independent identity and creation time of a
/// container never change: `update` takes the field paths `labels[.KEY]`, `spec`, `extensions[.KEY]`, `image`,
/// `snapshotkey`, `snapshotter`, `runtime.options`; none means all of them.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// One container by id.
    async fn get(&self, scope: &Scope, id: &str) -> Result<Container>;
    /// All containers that match.
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Container>>;
    /// Adds a container.
    async fn create(&self, scope: &Scope, container: Container) -> Result<Container>;
    /// Changes a container.
    async fn update(&self, scope: &Scope, container: Container, fieldpaths: &[String]) -> Result<Container>;
    /// Removes a container.
    async fn delete(&self, scope: &Scope, id: &str) -> Result<()>;
}

handle! {
    /// A container store, for whoever uses one.
    ContainerStore over Backend {
        /// One container by id.
        fn get(scope: &Scope, id: &str) -> Container;
        /// All containers that match.
        fn list(scope: &Scope, filters: &Filters) -> Vec<Container>;
        /// Adds a container.
        fn create(scope: &Scope, container: Container) -> Container;
        /// Changes a container.
        fn update(scope: &Scope, container: Container, fieldpaths: &[String]) -> Container;
        /// Removes a container.
        fn delete(scope: &Scope, id: &str) -> ();
    }
}
