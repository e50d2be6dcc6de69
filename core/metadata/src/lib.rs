//! Who knows what: namespaced stores of content, snapshots, images, containers, sandboxes, leases and activated mounts over
//! one database, and the garbage collector that removes what nothing refers to.
//!
//! The database is the truth; an immutable index in memory ([`state`]) answers every read. Changes are made on a draft
//! of that index on the database's writer ([`core`]), and published when they are durable, followed by their events.
//! Bytes of blobs and snapshots are the backends' (`content`, `snapshot`, proxies); backends are never called inside a
//! change or under a lock. This crate publishes the events `/images/*`, `/containers/*`, `/content/*`, `/snapshot/*`
//! and `/namespaces/*`; nobody else should.

mod check;
mod claim;
mod container;
mod content;
mod core;
mod event;
mod gc;
mod image;
mod lease;
mod mounts;
mod namespace;
mod plugin;
mod record;
mod sandbox;
mod shelf;
mod snapshot;
mod state;

pub use content::SharingPolicy;
pub use gc::{Scheduler, SchedulerConfig};
pub use plugin::{Config, Deps, LeaseDeps, LeasePlugin, Plugin, SCHEMA, open};
