//! The ttrpc listener: what plugins offer to shims, on a socket beside the gRPC one.

use std::sync::Arc;

use anyhow::Context as _;
use kevel_plugin::{All, InitContext, InitError, Plugin, deps};
use kevel_service::{GrpcPlugins, Offer};
use tokio_util::sync::CancellationToken;

use super::{Server, Servers, Serving, socket::Socket};

/// `io.containerd.server.v1.ttrpc`.
pub(crate) struct Ttrpc;

deps! {
    /// Everything that serves clients.
    pub(crate) struct Deps { plugins: All<GrpcPlugins> }
}

impl Plugin for Ttrpc {
    type Kind = Servers;
    const ID: &'static str = "ttrpc";
    type Config = Socket;
    type Deps = Deps;

    async fn init(_: InitContext, config: Socket, deps: Deps) -> Result<Server, InitError> {
        let offers: Vec<_> = deps.plugins.0.into_values().collect();
        Ok(Server::new(move |stop| listen(config.clone(), offers.clone(), stop)))
    }
}

async fn listen(config: Socket, offers: Vec<Offer>, stop: CancellationToken) -> anyhow::Result<Serving> {
    let listener = config.listen().await?;
    // A shim runs as the daemon's user; nobody else may forge its events.
    let mut server = kevel_ttrpc::Server::new().require_same_uid();
    for offer in &offers {
        offer.add_ttrpc(&mut server).context("adding a ttrpc service")?;
    }
    let server = Arc::new(server);
    let path = config.address;
    Ok(Box::pin(async move {
        server.serve(listener, stop).await;
        let _ = tokio::fs::remove_file(path).await; // a leftover is replaced at the next start
    }))
}
