//! Pod networking: network namespaces and the runtime side of CNI 1.1.
//!
//! Reading order:
//! - [`Network`] is what the CRI server holds: attach, detach, check, status and garbage collection of pods;
//! - [`Cni`] runs one network's chain of plugins for one attachment and keeps the record of it ([`cache`]);
//! - [`Invoker`] is the seam through which a plugin `type` is called; [`ExecInvoker`] runs binaries;
//! - [`conf`] reads network configurations, [`result`] reads what plugins answer;
//! - [`netns`] creates, pins and removes network namespaces;
//! - [`stray`] ends the plugins that a daemon which was killed left running.
//!
//! What does not live here: the CRI protocol, sandbox state, DNS files, and plugins themselves.
//!
//! The rules come from the CNI specification 1.1.0; where practice (libcni) and text differ, the code says so.

pub mod cache;
pub mod chain;
pub mod conf;
mod config;
mod error;
mod field;
mod gate;
pub mod invoke;
mod name;
pub mod netns;
mod network;
mod pod;
mod port;
pub mod result;
pub mod stray;
mod version;

pub use chain::{Added, Attachment, Cni};
pub use config::{Config, IpPreference, Timeouts};
pub use error::{Error, Kind};
pub use field::FieldError;
pub use invoke::{Call, ExecInvoker, Invoker, PluginError, Verb};
pub use netns::Netns;
pub use network::{LoadReport, Network, NetworkStatus, Origin};
pub use pod::{Bandwidth, PodDns, PodInterface, PodIp, PodNetwork, PodNetworkStatus};
pub use port::{PortMapping, Protocol};
pub use version::SpecVersion;
