//! The API that clients and shims call: containerd's gRPC services, and ttrpc's for events, over contract handles.
//!
//! A folder per service, a file per RPC. Translation only: what a call means is said and done behind the handle. Here
//! too: the plugins of these services, and those service plugins that only pick a store out of the metadata store, ask
//! differs in turn, hold streams, or tell the daemon's own facts.

mod call;
pub mod containers;
pub mod content;
pub mod controllers;
pub mod diff;
pub mod events;
pub mod health;
pub mod images;
pub mod introspection;
pub mod leases;
pub mod mounts;
pub mod namespaces;
mod offer;
mod plugins;
pub mod sandboxes;
mod services;
pub mod snapshots;
pub mod streaming;
pub mod tasks;
pub mod transfer;
pub mod version;

pub use kevel_client::convert::error::status;
pub use offer::{GrpcPlugins, Offer};
pub use plugins::register;
pub use services::DiffConfig;
