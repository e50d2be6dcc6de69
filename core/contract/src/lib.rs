//! What the core services promise each other: a module per service with a trait for whoever implements it, a concrete
//! handle for whoever uses it, the types they exchange, and the plugin kind it is registered under.
//!
//! A handle is the same for a service in this process and for one behind a socket; checks, deadline, span and metric
//! live in the handle, once. Nothing here does I/O, speaks protobuf or knows an implementation. "Pod" is said in
//! [`sandbox`] alone.
//!
//! Every call starts with a [`Scope`]: the namespace it acts in and the lease that protects what it makes.

pub mod call;
pub mod container;
pub mod content;
pub mod diff;
pub mod event;
pub mod image;
pub mod introspection;
pub mod lease;
pub mod metadata;
pub mod metric;
pub mod mounts;
pub mod namespace;
pub mod runtime;
pub mod sandbox;
mod scope;
pub mod snapshot;
pub mod stream;
pub mod task;
pub mod trace;
pub mod transfer;
pub mod verifier;

pub use call::{Observer, observe};
pub use scope::Scope;
