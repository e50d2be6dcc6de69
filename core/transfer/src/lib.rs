//! The transfer service: images from registries and archives into the stores of the node, and back.
//!
//! A pull resolves once, asks the verifiers, keeps the documents, and lets each layer be one stream that is read once: from the socket
//! into the content store and, at the same time, decompressed into a snapshot ([`unpack`]). Each blob and each chain of
//! layers is worked on once per node, however many ask ([`flight`]). Talking to registries is `kevel-registry`'s,
//! applying layers `kevel-diff`'s, storing the stores'.

mod apply;
mod archive;
mod config;
mod document;
mod export;
mod fetch;
mod flight;
#[doc(hidden)]
pub mod fuzzing;
mod import;
mod labels;
mod lease;
mod listeners;
mod plugin;
mod pull;
mod push;
mod same;
mod select;
mod service;
mod store;
mod unpack;
pub mod verifier;

pub use config::Config;
pub use plugin::Plugin;
pub use service::{Parts, Service, Snapshotting};
