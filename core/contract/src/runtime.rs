//! The runtime for tasks: the task service of one runtime, and what is known of the shims behind it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use kevel_model::{Any, Result};
use kevel_plugin::Kind;

use crate::{
    introspection::{Health, RuntimeInfo},
    task::Tasks,
};

/// The runtime for tasks: `io.containerd.runtime.v2.task`.
pub enum Runtimes {}

impl Kind for Runtimes {
    const TYPE: &'static str = "io.containerd.runtime.v2";
    type Handle = Runtime;
}

/// A runtime, for whoever uses it.
#[derive(Clone)]
pub struct Runtime {
    /// Its tasks.
    pub tasks: Tasks,
    /// What its shims say.
    pub probe: Arc<dyn RuntimeProbe>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("tasks", &self.tasks).finish_non_exhaustive()
    }
}

/// Asks shims about themselves, for whoever writes a runtime.
#[async_trait]
pub trait RuntimeProbe: Send + Sync + 'static {
    /// What the shim of a runtime says of itself and of what it would run, given options for it.
    async fn info(&self, runtime: &str, options: Option<&Any>) -> Result<RuntimeInfo>;
    /// How shims are doing. Asks none of them.
    fn health(&self) -> Vec<Health>;
}
