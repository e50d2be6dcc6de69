//! `io.containerd.monitor.task.v1.cgroups`.

use kevel_cgroup::Hierarchies;
use kevel_contract::{event::Events, metadata::Metadata, metric::Metrics, task::TaskService};
use kevel_plugin::{InitContext, InitError, Kind, One, deps};
use serde::{Deserialize, Serialize};

use crate::{Monitor, collector::Collector};

/// Monitors of tasks: `io.containerd.monitor.task.v1`.
pub enum TaskMonitors {}

impl Kind for TaskMonitors {
    const TYPE: &'static str = "io.containerd.monitor.task.v1";
    type Handle = Monitor;
}

/// The table of [`Plugin`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Have no numbers of tasks for Prometheus.
    pub no_prometheus: bool,
}

deps! {
    /// What the monitor needs.
    pub struct Deps {
        /// Where tasks are told of, and kills are.
        events: One<Events>,
        /// Which namespaces there are.
        metadata: One<Metadata>,
        /// Which tasks run when the monitor starts.
        tasks: One<TaskService>,
        /// Where the numbers go.
        metrics: One<Metrics>,
    }
}

/// The plugin.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = TaskMonitors;
    const ID: &'static str = "cgroups";
    type Config = Config;
    type Deps = Deps;

    async fn init(cx: InitContext, config: Config, deps: Deps) -> Result<Monitor, InitError> {
        cx.platform(kevel_model::Platform::host().to_string());
        let hierarchies = Hierarchies::of_node().map_err(InitError::failed)?;
        let monitor = Monitor::new(hierarchies, deps.events.0);
        if !config.no_prometheus {
            let collector = Collector::new(monitor.clone()).map_err(InitError::failed)?;
            deps.metrics.register(collector).map_err(InitError::failed)?;
        }
        let following = tokio::spawn(monitor.clone().follow(deps.metadata.namespaces.clone(), deps.tasks.0));
        let closing = monitor.clone();
        cx.on_close(move || async move {
            following.abort();
            closing.close();
        });
        Ok(monitor)
    }
}
