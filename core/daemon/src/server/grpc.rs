//! The gRPC listener: every gRPC service that a plugin offers, on one Unix socket.

use std::time::Duration;

use kevel_plugin::{All, InitContext, InitError, One, Plugin, deps};
use kevel_service::{GrpcPlugins, Offer};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{service::RoutesBuilder, transport::Server as Tonic};

use super::{
    Server, Servers, Serving,
    count::{Counting, GrpcCounting},
    socket::Socket,
    trace::Tracing,
};

/// Calls of one connection that may run at once; kubelet and busy clients stay far below.
const MAX_STREAMS: u32 = 4096;
/// What a client that went away without a word costs at the most.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// `io.containerd.server.v1.grpc`.
pub(crate) struct Grpc;

deps! {
    /// Everything that serves clients.
    pub(crate) struct Deps {
        plugins: All<GrpcPlugins>,
        /// Where calls are counted.
        counting: One<GrpcCounting>,
    }
}

impl Plugin for Grpc {
    type Kind = Servers;
    const ID: &'static str = "grpc";
    type Config = Socket;
    type Deps = Deps;

    async fn init(cx: InitContext, config: Socket, deps: Deps) -> Result<Server, InitError> {
        cx.export("address", config.address.clone());
        let offers: Vec<_> = deps.plugins.0.into_values().collect();
        let counting = deps.counting.0;
        Ok(Server::new(move |stop| listen(config.clone(), offers.clone(), counting.clone(), stop)))
    }
}

/// A server with the limits of every gRPC listener.
pub(super) fn builder() -> Tonic {
    Tonic::builder().http2_keepalive_interval(Some(KEEPALIVE)).max_concurrent_streams(Some(MAX_STREAMS))
}

async fn listen(
    config: Socket,
    offers: Vec<Offer>,
    counting: Counting,
    stop: CancellationToken,
) -> anyhow::Result<Serving> {
    let listener = config.listen().await?;
    let mut routes = RoutesBuilder::default();
    for offer in &offers {
        offer.add_grpc(&mut routes);
    }
    let server = builder().layer(Tracing).layer(counting).add_routes(routes.routes());
    let path = config.address;
    Ok(Box::pin(async move {
        let served = server.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the gRPC listener ended");
        }
        let _ = tokio::fs::remove_file(path).await; // a leftover is replaced at the next start
    }))
}
