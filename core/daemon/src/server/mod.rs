//! The listeners: gRPC on a Unix socket and on TCP, ttrpc, metrics and debug, each a plugin. A listener's plugin collects what it serves while the graph
//! starts; its socket is opened when everything has started.

mod count;
mod debug;
mod grpc;
mod http;
mod metrics;
mod socket;
mod tcp;
mod tls;
mod trace;
mod ttrpc;

use std::sync::Arc;

use futures::future::BoxFuture;
use kevel_plugin::Kind;
use tokio_util::sync::CancellationToken;

pub(crate) use count::GrpcCounter;
pub(crate) use debug::Debug;
pub(crate) use grpc::Grpc;
pub(crate) use metrics::Metrics;
pub(crate) use tcp::GrpcTcp;
pub(crate) use ttrpc::Ttrpc;

/// The type of listener plugins.
pub(crate) const TYPE: &str = "io.containerd.server.v1";
/// The gRPC listener.
pub(crate) const GRPC_URI: &str = "io.containerd.server.v1.grpc";
/// The ttrpc listener.
pub(crate) const TTRPC_URI: &str = "io.containerd.server.v1.ttrpc";

/// Listeners: `io.containerd.server.v1`.
pub(crate) enum Servers {}

impl Kind for Servers {
    const TYPE: &'static str = TYPE;
    type Handle = Server;
}

/// What serves until it is told to stop.
pub(crate) type Serving = BoxFuture<'static, ()>;

/// Opens a socket; answers the future that serves it until the token is cancelled.
type Listen = dyn Fn(CancellationToken) -> BoxFuture<'static, anyhow::Result<Serving>> + Send + Sync;

/// A listener that can be opened.
#[derive(Clone)]
pub(crate) struct Server(Arc<Listen>);

impl Server {
    fn new<F>(listen: impl Fn(CancellationToken) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<Serving>> + Send + 'static,
    {
        Self(Arc::new(move |stop| Box::pin(listen(stop))))
    }

    /// Opens the socket.
    pub(crate) async fn listen(&self, stop: CancellationToken) -> anyhow::Result<Serving> {
        (self.0)(stop).await
    }
}
