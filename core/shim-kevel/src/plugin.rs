//! The task service as a plugin.

use std::sync::Arc;

use kevel_plugin::{InitContext, InitError, One, Plugin, deps};
use kevel_shim::{Identity, Publishers, Reapers, Services, Shutdowns, TtrpcServices, task};

use crate::{container::Host, tasks::Service};

deps! {
    /// What tasks need.
    pub(crate) struct TaskDeps {
        reaper: One<Reapers>, events: One<Publishers>, shutdown: One<Shutdowns>,
    }
}

/// Serves tasks.
pub(crate) struct TaskPlugin;

impl Plugin for TaskPlugin {
    type Kind = TtrpcServices;
    const ID: &'static str = "task";
    type Config = ();
    type Deps = TaskDeps;

    async fn init(cx: InitContext, (): (), deps: TaskDeps) -> Result<Services, InitError> {
        let namespace = Identity::of(&cx)?.namespace;
        let host = Host { namespace, reaper: deps.reaper.0, events: deps.events.0 };
        Ok(task::services(Arc::new(Service::new(host, deps.shutdown.0))))
    }
}
