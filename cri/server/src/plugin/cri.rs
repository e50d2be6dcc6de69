//! `io.containerd.grpc.v1.cri`.

use std::sync::Arc;

use kevel_contract::{
    container::ContainerService,
    diff::DiffService,
    event::Events,
    introspection::IntrospectionService,
    metadata::Metadata,
    metric::Metrics,
    sandbox::{PodSandboxControllers, SandboxControllers, SandboxStores},
    task::TaskService,
};
use kevel_cri_nri::NriPlugins;
use kevel_cri_streaming::{Config as StreamingConfig, Endpoint, KeyPair};
use kevel_plugin::{All, InitContext, InitError, Maybe, One, Plugin, deps};
use kevel_service::{GrpcPlugins, Offer};
use serde::{Deserialize, Serialize};

use super::{CriImages, CriRuntime};
use crate::{
    checkpoint::Storage,
    patience::Patient,
    server::{Parts, Server},
    service::{StreamingRuntime, image_service, runtime_service},
};

/// Property: where programs are looked for, as in the variable `PATH`.
const SEARCH_PATH: &str = "io.kevel.plugin.path";
/// Where they are looked for when nobody says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The configuration of the services themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CriConfig {
    /// Do not serve the CRI at the address of `io.containerd.server.v1.grpc-tcp`.
    pub disable_tcp_service: bool,
    /// The IP address that clients of Exec, Attach and PortForward come to; the address of the node's default route
    /// when it is empty.
    pub stream_server_address: String,
    /// The port they come to; 0 lets the kernel choose.
    pub stream_server_port: String,
    /// How long nothing may happen on a connection before it is ended, e.g. `4h`; `0` is for ever.
    pub stream_idle_timeout: String,
    /// Serve them HTTPS.
    pub enable_tls_streaming: bool,
    /// The certificate for that; one that the daemon signs itself when there is none.
    pub x509_key_pair_streaming: KeyPair,
}

impl Default for CriConfig {
    fn default() -> Self {
        let streaming = StreamingConfig::default();
        Self {
            disable_tcp_service: true,
            stream_server_address: streaming.stream_server_address,
            stream_server_port: streaming.stream_server_port,
            stream_idle_timeout: streaming.stream_idle_timeout,
            enable_tls_streaming: streaming.enable_tls_streaming,
            x509_key_pair_streaming: streaming.x509_key_pair_streaming,
        }
    }
}

impl CriConfig {
    /// The part for the streaming server. Its keys stand here by name, so that one that nobody knows is noticed.
    fn streaming(self) -> StreamingConfig {
        StreamingConfig {
            stream_server_address: self.stream_server_address,
            stream_server_port: self.stream_server_port,
            stream_idle_timeout: self.stream_idle_timeout,
            enable_tls_streaming: self.enable_tls_streaming,
            x509_key_pair_streaming: self.x509_key_pair_streaming,
        }
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
        /// Where metrics go.
        metrics: One<Metrics>,
        /// Who is told and asked of pods and containers.
        nri: One<NriPlugins>,
        /// What packs and unpacks checkpoints.
        differ: Maybe<DiffService>,
    }
}

/// The plugin.
pub struct CriPlugin;

impl Plugin for CriPlugin {
    type Kind = GrpcPlugins;
    const ID: &'static str = "cri";
    type Config = CriConfig;
    type Deps = CriDeps;

    async fn init(cx: InitContext, config: CriConfig, deps: CriDeps) -> Result<Offer, InitError> {
        let mut controllers = deps.controllers.0;
        controllers.insert("podsandbox".to_owned(), deps.podsandbox.0);
        let wrong = |error: kevel_model::Error| InitError::Config { uri: cx.uri.clone(), message: error.chain() };
        let tcp = !config.disable_tcp_service;
        let (streaming, clients) = Endpoint::bind(&config.streaming()).await.map_err(wrong)?;
        cx.export("StreamServer", streaming.base());
        let (content, leases) = (deps.metadata.content.clone(), deps.metadata.leases.clone());
        let storage = deps.differ.0.map(|differ| Storage { content, leases, differ });
        let search_path = cx.property(SEARCH_PATH).unwrap_or(DEFAULT_PATH);
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
            streaming: streaming.clone(),
            metrics: deps.metrics.0,
            nri: deps.nri.0,
            storage,
            search_path: search_path.split(':').map(Into::into).collect(),
        });
        let server = server.map_err(InitError::failed)?;
        server.recover().await.map_err(InitError::failed)?;
        server.start_plugins().await.map_err(InitError::failed)?;
        let mut tasks = server.watch_networks();
        tasks.push(tokio::spawn(server.clone().follow_oom()));
        tasks.push(tokio::spawn(server.clone().learn_features()));
        tasks.push(tokio::spawn(server.clone().tend_networks()));
        tasks.push(tokio::spawn(server.clone().collect_usage()));
        tasks.push(tokio::spawn(clients.serve(Arc::new(StreamingRuntime::new(server.clone())))));
        cx.on_close(move || async move {
            streaming.close();
            tasks.iter().for_each(tokio::task::JoinHandle::abort);
        });
        let offer = Offer::grpc(move |routes| {
            routes.add_service(Patient(runtime_service(server.clone())));
            routes.add_service(Patient(image_service(server.clone())));
        });
        Ok(if tcp { offer.on_tcp() } else { offer })
    }
}
