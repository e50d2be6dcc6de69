//! `io.containerd.grpc.v1.cri`.

use kevel_contract::{
    container::ContainerService,
    event::Events,
    introspection::IntrospectionService,
    metadata::Metadata,
    sandbox::{PodSandboxControllers, SandboxControllers, SandboxStores},
    task::TaskService,
};
use kevel_plugin::{All, InitContext, InitError, One, Plugin, deps};
use kevel_service::{GrpcPlugins, Offer};
use serde::{Deserialize, Serialize};

use super::{CriImages, CriRuntime};
use crate::{
    server::{Parts, Server},
    service::{image_service, runtime_service},
};

/// The configuration of the services themselves. The keys are about streaming, which is not offered yet; they are
/// known, so that a configuration of containerd's is not called wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CriConfig {
    /// Do not serve the CRI over TCP; it never is.
    pub disable_tcp_service: bool,
}

impl Default for CriConfig {
    fn default() -> Self {
        Self { disable_tcp_service: true }
    }
}

deps! {
    /// What the CRI needs.
    pub struct CriDeps {
        /// Container records, with their events.
        containers: One<ContainerService>,
        /// Snapshotters.
        metadata: One<Metadata>,
        /// Sandbox records.
        sandboxes: One<SandboxStores>,
        /// Tasks.
        tasks: One<TaskService>,
        /// Events of the core.
        events: One<Events>,
        /// What shims say of themselves.
        introspection: One<IntrospectionService>,
        /// The controller with a pause container.
        podsandbox: One<PodSandboxControllers>,
        /// All others.
        controllers: All<SandboxControllers>,
        /// Images.
        images: One<CriImages>,
        /// Handlers and the node.
        runtime: One<CriRuntime>,
    }
}

/// The plugin.
pub struct CriPlugin;

impl Plugin for CriPlugin {
    type Kind = GrpcPlugins;
    const ID: &'static str = "cri";
    type Config = CriConfig;
    type Deps = CriDeps;

    async fn init(cx: InitContext, _: CriConfig, deps: CriDeps) -> Result<Offer, InitError> {
        let mut controllers = deps.controllers.0;
        controllers.insert("podsandbox".to_owned(), deps.podsandbox.0);
        let server = Server::new(Parts {
            containers: deps.containers.0,
            sandboxes: deps.sandboxes.0,
            tasks: deps.tasks.0,
            snapshotters: deps.metadata.snapshotters.clone(),
            events: deps.events.0,
            introspection: deps.introspection.0,
            controllers,
            images: deps.images.0,
            settings: deps.runtime.0,
        });
        server.recover().await.map_err(InitError::failed)?;
        let mut tasks = server.watch_networks();
        tasks.push(tokio::spawn(server.clone().follow_oom()));
        tasks.push(tokio::spawn(server.clone().learn_features()));
        cx.on_close(move || async move { tasks.iter().for_each(tokio::task::JoinHandle::abort) });
        Ok(Offer::grpc(move |routes| {
            routes.add_service(runtime_service(server.clone()));
            routes.add_service(image_service(server.clone()));
        }))
    }
}
