//! What a plugin serves to clients: gRPC services, and ttrpc ones for shims.

use std::{fmt, sync::Arc};

use kevel_plugin::Kind;
use tonic::service::RoutesBuilder;

/// Plugins that serve clients: `io.containerd.grpc.v1`.
pub enum GrpcPlugins {}

impl Kind for GrpcPlugins {
    const TYPE: &'static str = "io.containerd.grpc.v1";
    type Handle = Offer;
}

type Add = Arc<dyn Fn(&mut RoutesBuilder) + Send + Sync>;
type Ttrpc = (String, Arc<dyn kevel_ttrpc::Service>);

/// What a plugin serves. The daemon adds the offers of all plugins to its servers.
#[derive(Clone, Default)]
pub struct Offer {
    grpc: Vec<Add>,
    tcp: Vec<Add>,
    ttrpc: Vec<Ttrpc>,
}

impl Offer {
    /// Offers gRPC services; `add` adds them to a server's routes, once for each server.
    pub fn grpc(add: impl Fn(&mut RoutesBuilder) + Send + Sync + 'static) -> Self {
        Self { grpc: vec![Arc::new(add)], tcp: Vec::new(), ttrpc: Vec::new() }
    }

    /// Offers a ttrpc service too, under its full name.
    #[must_use]
    pub fn and_ttrpc(mut self, name: impl Into<String>, service: Arc<dyn kevel_ttrpc::Service>) -> Self {
        self.ttrpc.push((name.into(), service));
        self
    }

    /// Offers its gRPC services on TCP as well. Nothing is there that did not ask for it.
    #[must_use]
    pub fn on_tcp(mut self) -> Self {
        self.tcp.clone_from(&self.grpc);
        self
    }

    /// Everything that this and `other` offer.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.grpc.extend(other.grpc);
        self.tcp.extend(other.tcp);
        self.ttrpc.extend(other.ttrpc);
        self
    }

    /// Adds the gRPC services to a server's routes.
    pub fn add_grpc(&self, routes: &mut RoutesBuilder) {
        for add in &self.grpc {
            add(routes);
        }
    }

    /// Adds the gRPC services that are offered on TCP to a server's routes; answers whether there are any.
    pub fn add_tcp(&self, routes: &mut RoutesBuilder) -> bool {
        self.tcp.iter().for_each(|add| add(routes));
        !self.tcp.is_empty()
    }

    /// Adds the ttrpc services to a server.
    ///
    /// # Errors
    /// When one of their names is taken.
    pub fn add_ttrpc(&self, server: &mut kevel_ttrpc::Server) -> Result<(), kevel_ttrpc::server::Duplicate> {
        self.ttrpc.iter().try_for_each(|(name, service)| server.register(name, service.clone()))
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.ttrpc.iter().map(|(name, _)| name).collect();
        f.debug_struct("Offer")
            .field("grpc", &self.grpc.len())
            .field("tcp", &self.tcp.len())
            .field("ttrpc", &names)
            .finish()
    }
}
