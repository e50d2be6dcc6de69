//! The services between a daemon and its shims, and how to name them on a ttrpc connection.
//!
//! ttrpc sends a service and a method as two strings; the constants here are those strings. The messages themselves are
//! in [`crate::containerd`].

/// The task service, which each shim serves, in two versions.
///
/// `containerd.task.v2` and `containerd.task.v3` have the same methods and, field by field, the same messages: only the
/// package differs, and ttrpc does not send the package of a message. So Kevel speaks both with **one** set of message
/// types, those re-exported here, and picks only the service name by what the shim announced. The types of
/// `containerd::task::v2` exist so that tests can hold the two against each other.
pub mod task {
    pub use crate::containerd::task::v2::task_ttrpc::SERVICE as SERVICE_V2;
    /// Method names, equal in both versions.
    pub use crate::containerd::task::v3::task_ttrpc as method;
    pub use crate::containerd::task::v3::task_ttrpc::SERVICE as SERVICE_V3;
    pub use crate::containerd::task::v3::*;
}

/// The sandbox service, which shims that run pods serve.
pub mod sandbox {
    pub use crate::containerd::runtime::sandbox::v1::sandbox_ttrpc as method;
    pub use crate::containerd::runtime::sandbox::v1::sandbox_ttrpc::SERVICE;
    pub use crate::containerd::runtime::sandbox::v1::*;
}

/// The service on which shims report events to the daemon.
pub mod events {
    pub use crate::containerd::services::events::ttrpc::v1::events_ttrpc as method;
    pub use crate::containerd::services::events::ttrpc::v1::events_ttrpc::SERVICE;
    pub use crate::containerd::services::events::ttrpc::v1::*;
}

/// The streaming service, which a shim serves when it carries its containers' input and output itself.
pub mod streaming {
    pub use crate::containerd::services::streaming::v1::StreamInit;
    pub use crate::containerd::services::streaming::v1::streaming_ttrpc as method;
    pub use crate::containerd::services::streaming::v1::streaming_ttrpc::SERVICE;
}

/// What a shim binary reads on standard input and answers on standard output when it is started.
pub mod bootstrap {
    pub use crate::containerd::runtime::bootstrap::v1::*;
}
