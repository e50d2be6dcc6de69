//! The plugins of `io.containerd.grpc.v1`, and the list of every plugin of this crate.

use std::sync::Arc;

use kevel_contract::{
    container::ContainerService,
    content::ContentService,
    diff::DiffService,
    event::Events,
    image::ImageService,
    introspection::IntrospectionService,
    lease::Leases,
    mounts::MountManagers,
    namespace::NamespaceService,
    sandbox::{PodSandboxControllers, SandboxControllers, SandboxStores},
    snapshot::SnapshotService,
    stream::Streams,
    task::TaskService,
    transfer::TransferService,
};
use kevel_plugin::{All, InitContext, InitError, One, Plugin, Registry, deps};
use kevel_proto::shim::events::SERVICE as SHIM_EVENTS;

use crate::{
    GrpcPlugins, Offer, containers, content, controllers, diff, events, health, images, introspection, leases, mounts,
    namespaces, sandboxes, services, snapshots, streaming, tasks, transfer, version,
};

/// Declares a plugin that offers a service over what it needs.
macro_rules! offer {
    ($plugin:ident as $id:literal needs $deps:ident { $($field:ident: $need:ty),* } => $offer:expr) => {
        deps! { pub(crate) struct $deps { $($field: $need),* } }

        pub(crate) struct $plugin;

        impl Plugin for $plugin {
            type Kind = GrpcPlugins;
            const ID: &'static str = $id;
            type Config = ();
            type Deps = $deps;

            async fn init(_: InitContext, (): (), $deps { $($field),* }: $deps) -> Result<Offer, InitError> {
                Ok($offer)
            }
        }
    };
}

offer! { Containers as "containers" needs ContainersDeps { store: One<ContainerService> } => containers::Containers(store.0).offer() }
offer! { Content as "content" needs ContentDeps { store: One<ContentService> } => content::Content(store.0).offer() }
offer! { Diff as "diff" needs DiffDeps { differ: One<DiffService> } => diff::Diff(differ.0).offer() }
offer! { EventsPlugin as "events" needs EventsDeps { exchange: One<Events> } => {
    let shims = Arc::new(events::ShimEvents(exchange.0.clone()));
    events::Events(exchange.0).offer().and_ttrpc(SHIM_EVENTS, shims)
} }
offer! { Images as "images" needs ImagesDeps { store: One<ImageService> } => images::Images(store.0).offer() }
offer! { Introspection as "introspection" needs IntrospectionDeps { service: One<IntrospectionService> } => {
    introspection::Introspection(service.0).offer()
} }
offer! { LeasesPlugin as "leases" needs LeasesDeps { manager: One<Leases> } => leases::Leases(manager.0).offer() }
offer! { Mounts as "mounts" needs MountsDeps { manager: One<MountManagers> } => mounts::Mounts(manager.0).offer() }
offer! { Namespaces as "namespaces" needs NamespacesDeps { store: One<NamespaceService> } => {
    namespaces::Namespaces(store.0).offer()
} }
offer! { Snapshots as "snapshots" needs SnapshotsDeps { service: One<SnapshotService> } => {
    snapshots::Snapshots(service.0).offer()
} }
offer! { Tasks as "tasks" needs TasksDeps { service: One<TaskService> } => tasks::Tasks(service.0).offer() }
offer! { Transfer as "transfer" needs TransferDeps { service: One<TransferService>, streams: One<Streams> } => {
    transfer::Transfer { service: service.0, streams: streams.0 }.offer()
} }
offer! { Streaming as "streaming" needs StreamingDeps { manager: One<Streams> } => streaming::Streaming(manager.0).offer() }
offer! { Sandboxes as "sandboxes" needs SandboxesDeps { store: One<SandboxStores> } => sandboxes::Store(store.0).offer() }
offer! { Controllers as "sandbox-controllers" needs ControllersDeps {
    controllers: All<SandboxControllers>,
    sandbox_containers: All<PodSandboxControllers>
} => {
    let mut all = controllers.0;
    all.extend(sandbox_containers.0);
    controllers::Controller(Arc::new(all)).offer()
} }
offer! { Health as "healthcheck" needs HealthDeps {} => health::Health.offer() }

/// Tells the version; the revision is the property `io.kevel.plugin.revision`, if the daemon gives it.
pub(crate) struct Version;

impl Plugin for Version {
    type Kind = GrpcPlugins;
    const ID: &'static str = "version";
    type Config = ();
    type Deps = ();

    async fn init(cx: InitContext, (): (), (): ()) -> Result<Offer, InitError> {
        let revision = cx.property("io.kevel.plugin.revision").unwrap_or_default().to_owned();
        Ok(version::Version { version: env!("CARGO_PKG_VERSION").to_owned(), revision }.offer())
    }
}

/// Adds every plugin of this crate to a list.
pub fn register(registry: &mut Registry) {
    registry
        .add::<services::ContainersService>()
        .add::<services::ContentsService>()
        .add::<services::ImagesService>()
        .add::<services::NamespacesService>()
        .add::<services::SnapshotsService>()
        .add::<services::MountManager>()
        .add::<services::SandboxesStore>()
        .add::<services::StreamsPlugin>()
        .add::<services::DiffsService>()
        .add::<introspection::Plugin>()
        .add::<Containers>()
        .add::<Content>()
        .add::<Diff>()
        .add::<EventsPlugin>()
        .add::<Images>()
        .add::<Introspection>()
        .add::<LeasesPlugin>()
        .add::<Mounts>()
        .add::<Namespaces>()
        .add::<Snapshots>()
        .add::<Tasks>()
        .add::<Transfer>()
        .add::<Streaming>()
        .add::<Sandboxes>()
        .add::<Controllers>()
        .add::<Health>()
        .add::<Version>();
}
