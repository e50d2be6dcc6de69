//! The Node Resource Interface 0.12: plugins that watch, adjust, update and validate pods and containers.
//!
//! Reading order:
//! - [`Nri`] is what the CRI calls at each step of a pod's and a container's life, and [`Domain`] what it offers in turn;
//! - `merge` makes one adjustment of what several plugins want, `validator` judges it, `oci` puts it into a spec: pure;
//! - `plugin` is one plugin and its failures, `register` how it comes to be one, `listen` and `launch` where it comes
//!   from, `mux` how it talks.
//!
//! Not here: what pods and containers are and how they are updated or stopped (the CRI), resolving CDI devices, block I/O
//! classes (the node has none), plugins in WebAssembly.

mod config;
mod event;
#[doc(hidden)]
pub mod fuzzing;
mod launch;
mod listen;
pub mod merge;
mod metrics;
mod mux;
mod name;
mod nri;
pub mod oci;
mod plugin;
mod register;
mod service;
mod stage;
mod synchronize;
mod validator;

pub use config::NriConfig;
pub use kevel_proto::nri::pkg::api::v1alpha1 as api;
pub use nri::{Adjusted, Domain, Entered, Nri, Subject};
pub use plugin::{NriDeps, NriPlugin, NriPlugins};
pub use stage::Stage;
pub use validator::{Validator, ValidatorConfig};
