//! The plugin graph: what a plugin is, what it needs, the order they start in, and what became of each.
//!
//! Used by the daemon and by shims alike. Nothing here knows a service: kinds are declared where their contracts are
//! ([`Kind`]), plugins beside what they run ([`Plugin`]), and one list in the binary adds them to a [`Registry`].
//!
//! ```
//! use std::sync::Arc;
//! use kevel_plugin::{InitContext, InitError, Kind, One, Plugin, Registry, Settings, deps};
//!
//! enum Greeters {}
//! impl Kind for Greeters { const TYPE: &'static str = "io.example.greeter.v1"; type Handle = Arc<String>; }
//! struct English;
//! impl Plugin for English {
//!     type Kind = Greeters;
//!     const ID: &'static str = "english";
//!     type Config = ();
//!     type Deps = ();
//!     async fn init(_: InitContext, _: (), _: ()) -> Result<Arc<String>, InitError> { Ok(Arc::new("hello".into())) }
//! }
//!
//! enum Doors {}
//! impl Kind for Doors { const TYPE: &'static str = "io.example.door.v1"; type Handle = usize; }
//! deps! { struct DoorDeps { greeter: One<Greeters> } }
//! struct Door;
//! impl Plugin for Door {
//!     type Kind = Doors;
//!     const ID: &'static str = "front";
//!     type Config = ();
//!     type Deps = DoorDeps;
//!     async fn init(_: InitContext, _: (), deps: DoorDeps) -> Result<usize, InitError> { Ok(deps.greeter.len()) }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let mut registry = Registry::default();
//! registry.add::<Door>();
//! registry.add::<English>();
//! let graph = registry.start(Settings::default()).await.unwrap();
//! assert_eq!(graph.all::<Doors>()["front"], 5);
//! # });
//! ```

mod checked;
mod config;
mod context;
mod deps;
mod error;
mod graph;
mod registry;
mod reload;
mod report;
#[cfg(test)]
mod tests;

pub use checked::Checked;
pub use config::Settings;
pub use context::{Declared, InitContext};
pub use deps::{All, Dep, Deps, Maybe, One, Requirement};
pub use error::{GraphError, InitError, chain};
pub use graph::Graph;
pub use registry::{Registration, Registry};
pub use reload::{Reload, Reloaded};
pub use report::{PluginStatus, Report, Reports};

use serde::{Serialize, de::DeserializeOwned};

/// A kind of plugin: its wire name and the handle its users hold. Several kinds may share a wire name (every
/// `io.containerd.service.v1` plugin has a handle of its own type); a plugin is still named once by type and id.
pub trait Kind: 'static {
    /// The type half of the plugin URI, e.g. `io.containerd.snapshotter.v1`.
    const TYPE: &'static str;
    /// What a dependent receives; cheap to clone.
    type Handle: Clone + Send + Sync + 'static;
}

/// A plugin: one implementation of one kind.
pub trait Plugin: 'static {
    /// What it is.
    type Kind: Kind;
    /// The id half of the plugin URI.
    const ID: &'static str;
    /// Its table in the configuration. `()` for none.
    type Config: Default + Serialize + DeserializeOwned + Send;
    /// What it needs; see [`deps!`].
    type Deps: Deps;

    /// Starts it. [`InitError::Skip`] means "not on this node" and is no fault.
    fn init(
        cx: InitContext,
        config: Self::Config,
        deps: Self::Deps,
    ) -> impl Future<Output = Result<<Self::Kind as Kind>::Handle, InitError>> + Send;
}
