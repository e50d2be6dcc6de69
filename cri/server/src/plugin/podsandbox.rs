//! `io.containerd.podsandbox.controller.v1.podsandbox`.

use kevel_contract::{
    call::Target,
    introspection::IntrospectionService,
    metadata::Metadata,
    sandbox::{PodSandboxControllers, SandboxController},
    task::TaskService,
};
use kevel_plugin::{InitContext, InitError, One, Plugin, deps};

use super::{CriImages, CriRuntime};
use crate::controller::PauseController;

deps! {
    /// What the controller needs.
    pub struct PodSandboxDeps {
        /// Container records and snapshotters.
        metadata: One<Metadata>,
        /// Tasks.
        tasks: One<TaskService>,
        /// What snapshotters can do.
        introspection: One<IntrospectionService>,
        /// The pause image.
        images: One<CriImages>,
        /// Handlers.
        runtime: One<CriRuntime>,
    }
}

/// The plugin.
pub struct PodSandboxPlugin;

impl Plugin for PodSandboxPlugin {
    type Kind = PodSandboxControllers;
    const ID: &'static str = "podsandbox";
    type Config = ();
    type Deps = PodSandboxDeps;

    async fn init(_: InitContext, (): (), deps: PodSandboxDeps) -> Result<SandboxController, InitError> {
        let controller = PauseController {
            containers: deps.metadata.containers.clone(),
            tasks: deps.tasks.0,
            snapshotters: deps.metadata.snapshotters.clone(),
            introspection: deps.introspection.0,
            images: deps.images.0,
            settings: deps.runtime.0,
            created: std::sync::Mutex::default(),
        };
        Ok(SandboxController::new(Target::local("sandbox controller podsandbox"), controller))
    }
}
