//! Namespaces: tenants and their labels.

#[cfg(feature = "suite")]
pub mod suite;

use async_trait::async_trait;
use kevel_model::{Labels, Namespace, Result};
use kevel_plugin::Kind;

use crate::call::handle;

/// The namespace service: `io.containerd.service.v1.namespaces-service`.
pub enum NamespaceService {}

impl Kind for NamespaceService {
    const TYPE: &'static str = "io.containerd.service.v1";
    type Handle = NamespaceStore;
}

/// A namespace store, for whoever writes one. A namespace comes to be when something is first made in it, or by
/// `create`; it can be deleted only when empty ("failed precondition", saying what is left).
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The labels of a namespace.
    async fn get(&self, name: &Namespace) -> Result<Labels>;
    /// All namespaces with their labels.
    async fn list(&self) -> Result<Vec<(Namespace, Labels)>>;
    /// Makes a namespace.
    async fn create(&self, name: &Namespace, labels: Labels) -> Result<()>;
    /// Changes labels, by field paths; answers all of them.
    async fn update(&self, name: &Namespace, labels: Labels, fieldpaths: &[String]) -> Result<Labels>;
    /// Removes an empty namespace.
    async fn delete(&self, name: &Namespace) -> Result<()>;
}

handle! {
    /// A namespace store, for whoever uses one.
    NamespaceStore over Backend {
        /// The labels of a namespace.
        fn get(name: &Namespace) -> Labels;
        /// All namespaces with their labels.
        fn list() -> Vec<(Namespace, Labels)>;
        /// Makes a namespace.
        fn create(name: &Namespace, labels: Labels) -> ();
        /// Changes labels.
        fn update(name: &Namespace, labels: Labels, fieldpaths: &[String]) -> Labels;
        /// Removes an empty namespace.
        fn delete(name: &Namespace) -> ();
    }
}
