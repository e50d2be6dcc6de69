//! In whose name a call is made.

use kevel_model::Namespace;

/// The namespace that a call acts in and the lease that protects what it makes. Backends that know no namespaces (a
/// content store on disk, a snapshotter) ignore both; remote ones pass them on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The tenant.
    pub namespace: Namespace,
    /// The lease that new objects are added to, so that the garbage collector leaves them alone.
    pub lease: Option<String>,
}

impl Scope {
    /// A scope without a lease.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, lease: None }
    }

    /// The same namespace under a lease.
    #[must_use]
    pub fn with_lease(&self, lease: impl Into<String>) -> Self {
        Self { namespace: self.namespace.clone(), lease: Some(lease.into()) }
    }
}
