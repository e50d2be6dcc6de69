//! Configuration of the CRI plugins, under containerd's keys. Only keys that Kevel acts on are here; the others are
//! reported as unknown when the daemon starts.

mod handler;
mod images;
mod registry;
mod runtime;

pub(crate) use handler::Handlers;
pub use handler::{Handler, HandlerConfig};
pub use images::{ImageDecryption, ImagesConfig, RegistryConfig, RuntimePlatform};
pub use registry::{Endpoints, HostAuth, HostConfig, HostTls};
pub use runtime::{CniConfig, CniTimeouts, ContainerdConfig, RuntimeConfig};
