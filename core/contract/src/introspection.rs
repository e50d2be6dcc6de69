//! What the daemon says of itself.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use kevel_model::{Any, Error, Filters, Result};
use kevel_plugin::{Kind, Report};

use crate::call::handle;

/// The introspection service: `io.containerd.service.v1.introspection-service`.
pub enum IntrospectionService {}

impl Kind for IntrospectionService {
    const TYPE: &'static str = "io.containerd.service.v1";
    type Handle = Introspection;
}

/// The daemon as a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Stays the same for the life of the root directory.
    pub uuid: String,
    /// Process id.
    pub pid: u64,
    /// Inode of its PID namespace.
    pub pidns: u64,
}

/// What a plugin's own binary says of it: for a runtime, its version, options and features.
#[derive(Clone, Debug, Default)]
pub struct PluginInfo {
    /// The plugin, if it is in the graph.
    pub plugin: Option<Arc<Report>>,
    /// A typed message with the details.
    pub extra: Option<Any>,
}

/// What a shim says of its runtime when asked with `-info`.
#[derive(Clone, Debug, Default)]
pub struct RuntimeInfo {
    /// Name of the shim.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its revision.
    pub revision: String,
    /// The options it would run with.
    pub options: Option<Any>,
    /// The OCI runtime's features, as JSON in a typed blob.
    pub features: Option<Any>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// How something that the daemon depends on is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What it is, e.g. `shim k8s.io/4b7c`.
    pub subject: String,
    /// In a word; `ok` when nothing is wrong.
    pub state: String,
    /// What is wrong; empty when nothing is.
    pub detail: String,
}

/// The introspection service, for whoever writes one.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Every plugin that matches, in the order of their start. Fields: type, id, capabilities, platforms.
    async fn plugins(&self, filters: &Filters) -> Result<Vec<Arc<Report>>>;
    /// The daemon as a process.
    async fn server(&self) -> Result<Server>;
    /// Details of one plugin, as of its own binary; options are handed to it.
    async fn plugin_info(&self, kind: &str, id: &str, options: Option<Any>) -> Result<PluginInfo>;
    /// What the shim of a runtime says of itself.
    async fn runtime_info(&self, runtime: &str, options: Option<Any>) -> Result<RuntimeInfo>;
    /// How shims are doing. Asks none of them; "unimplemented" from who does not know, as containerd does not.
    async fn health(&self) -> Result<Vec<Health>> {
        Err(Error::unimplemented("the health of shims is not told"))
    }
}

handle! {
    /// The introspection service, for whoever uses it.
    Introspection over Backend {
        /// Every plugin that matches.
        fn plugins(filters: &Filters) -> Vec<Arc<Report>>;
        /// The daemon as a process.
        fn server() -> Server;
        /// Details of one plugin.
        fn plugin_info(kind: &str, id: &str, options: Option<Any>) -> PluginInfo;
        /// What the shim of a runtime says of itself.
        fn runtime_info(runtime: &str, options: Option<Any>) -> RuntimeInfo;
        /// How shims are doing.
        fn health() -> Vec<Health>;
    }
}
