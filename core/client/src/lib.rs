//! The other end of `kevel-service`: contract handles to services behind a Unix socket, and the proxy plugins of the
//! configuration, which are such handles.
//!
//! A handle from here is used like any other; that it is remote shows in its deadline only. Nothing here serves.
//!
//! ```no_run
//! # async fn example() -> kevel_model::Result<()> {
//! use kevel_contract::Scope;
//! use kevel_model::Namespace;
//!
//! let remote = kevel_client::Remote::new("keveld", "/run/kevel/kevel.sock")?;
//! let image = kevel_client::images(&remote).get(&Scope::new(Namespace::k8s()), "docker.io/library/busybox:1").await?;
//! # let _ = image;
//! # Ok(())
//! # }
//! ```

mod container;
mod content;
pub mod convert;
mod diff;
mod event;
mod image;
mod introspection;
mod lease;
mod mounts;
mod namespace;
pub mod proxy;
mod remote;
mod sandbox;
mod snapshot;
pub mod stream;
mod task;

pub use container::containers;
pub use content::content;
pub use diff::differ;
pub use event::events;
pub use image::images;
pub use introspection::introspection;
pub use lease::leases;
pub use mounts::mounts;
pub use namespace::namespaces;
pub use remote::{DEADLINE, Remote};
pub use sandbox::{controller, sandboxes};
pub use snapshot::snapshotter;
pub use task::tasks;
