//! The local content store: blobs and ingests in files, laid out as containerd lays them out.
//!
//! ```text
//! <root>/blobs/<algorithm>/<hex>                     a blob, read-only, durable
//! <root>/ingest/<sha256 of the reference>/data       what was written so far
//!                                        /ref        the reference
//!                                        /startedat  RFC 3339
//!                                        /updatedat  RFC 3339
//!                                        /total      decimal, when known
//! ```
//!
//! A blob appears under its name only after its data is on disk, so a crash at any instant leaves a blob whole or an
//! ingest to resume. The store knows no namespaces and keeps no labels: both live in the metadata.

mod blob;
mod error;
mod ingest;
mod layout;
mod lock;
mod plugin;
mod store;
mod time;

pub use error::Error;
pub use plugin::{Config, Plugin};
pub use store::LocalStore;
