//! A client for image registries: the OCI distribution API over HTTP and TLS.
//!
//! What lives here: which hosts to ask for a registry ([`hosts`]: `hosts.toml` and Docker's certificate directories,
//! read anew for each session), how to talk to them (TLS, redirects, retries, timeouts), who the puller is (basic and
//! bearer authentication), and the calls of the API: resolve, fetch, push. What does not: stores, images, layers.
//!
//! A [`Registry`] lives as long as the daemon and shares connections. A [`Session`] is made for one transfer of one
//! reference; it reads the host configuration and holds credentials and tokens.
//!
//! ```no_run
//! # async fn pull() -> Result<(), kevel_registry::Error> {
//! use kevel_registry::{Options, Registry, Settings};
//! let registry = Registry::new(Settings::default());
//! let reference = kevel_model::Reference::familiar("registry.k8s.io/pause:3.10").unwrap();
//! let session = registry.session(&reference, Options::default()).await?;
//! let descriptor = session.resolve().await?;
//! let manifest = session.document(&descriptor).await?;
//! # Ok(()) }
//! ```

mod auth;
mod blob;
mod challenge;
mod document;
mod error;
mod fetch;
pub mod hosts;
mod push;
mod request;
mod resolve;
mod session;
mod settings;
mod tls;
mod transport;
mod try_hosts;

pub use auth::Credentials;
pub use blob::BlobStream;
pub use challenge::{Challenge, parse as parse_challenges};
pub use error::{Answer, Error, Why};
pub use fetch::{BlobFetch, Budget, Parts};
pub use hosts::{Capabilities, Host};
pub use session::{Options, Registry, Session};
pub use settings::Settings;
