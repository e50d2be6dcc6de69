//! The gRPC listener on TCP: what plugins offer there too, behind TLS with certificates on both sides, or on the loopback.

use std::net::SocketAddr;

use anyhow::Context as _;
use kevel_plugin::{InitContext, InitError, Plugin};
use kevel_service::Offer;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use super::{
    Server, Servers, Serving,
    count::Counting,
    grpc,
    tls::{self, Secured},
    trace::Tracing,
};

/// `io.containerd.server.v1.grpc-tcp`: off unless it has an address.
pub(crate) struct GrpcTcp;

/// The listener's table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    /// `IP:PORT` to listen at; no listener when empty.
    pub(crate) address: String,
    /// File with the authorities of clients: who comes has a certificate of one of them. Nothing else tells root of the
    /// node from anybody, so that only the loopback goes without.
    pub(crate) tls_ca: String,
    /// File with the listener's own certificate.
    pub(crate) tls_cert: String,
    /// File with its key.
    pub(crate) tls_key: String,
    /// Names a certificate of Windows' store; refused.
    pub(crate) tls_common_name: String,
}

impl Plugin for GrpcTcp {
    type Kind = Servers;
    const ID: &'static str = "grpc-tcp";
    type Config = Config;
    type Deps = grpc::Deps;

    async fn init(cx: InitContext, config: Config, deps: grpc::Deps) -> Result<Server, InitError> {
        if config.address.is_empty() {
            return Err(InitError::Skip("no address is configured".to_owned()));
        }
        let wrong = |message: String| InitError::Config { uri: cx.uri.clone(), message };
        let address = check(&config).map_err(wrong)?;
        let acceptor = match config.tls_cert.is_empty() {
            true => None,
            false => Some(tls::acceptor(&config).map_err(|error| wrong(format!("{error:#}")))?),
        };
        cx.export("address", config.address.clone());
        let offers: Vec<_> = deps.plugins.0.into_values().collect();
        let counting = deps.counting.0;
        Ok(Server::new(move |stop| listen(address, acceptor.clone(), offers.clone(), counting.clone(), stop)))
    }
}

/// The address, if who can reach it may.
fn check(config: &Config) -> Result<SocketAddr, String> {
    let Config { address, tls_ca, tls_cert, tls_key, tls_common_name } = config;
    if !tls_common_name.is_empty() {
        return Err("tls_common_name: names a certificate in the store of Windows; name files".to_owned());
    }
    if tls_cert.is_empty() != tls_key.is_empty() {
        return Err("tls_cert and tls_key: one is nothing without the other".to_owned());
    }
    if tls_cert.is_empty() && !tls_ca.is_empty() {
        return Err("tls_ca: nobody is asked for a certificate without tls_cert and tls_key".to_owned());
    }
    let parsed: SocketAddr = address.parse().map_err(|_| format!("address: {address:?} is not IP:PORT"))?;
    if parsed.ip().is_loopback() || !tls_ca.is_empty() {
        return Ok(parsed);
    }
    Err(format!(
        "address: whoever reaches {address} is root of this node; it needs tls_cert, tls_key and tls_ca, or the loopback"
    ))
}

async fn listen(
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    offers: Vec<Offer>,
    counting: Counting,
    stop: CancellationToken,
) -> anyhow::Result<Serving> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening at {address}"))?;
    let mut routes = RoutesBuilder::default();
    let served = offers.iter().filter(|offer| offer.add_tcp(&mut routes)).count();
    if served == 0 {
        tracing::warn!(%address, "no plugin serves anything on TCP; the CRI does with disable_tcp_service = false");
    }
    if acceptor.is_none() {
        tracing::warn!(%address, "gRPC on TCP without TLS: every user and every pod on the node's network can use it");
    }
    let server = grpc::builder().layer(Tracing).layer(counting).add_routes(routes.routes());
    Ok(Box::pin(async move {
        let stopped = stop.clone().cancelled_owned();
        let served = match acceptor {
            None => server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await,
            Some(acceptor) => {
                server.serve_with_incoming_shutdown(Secured::accept(listener, acceptor, stop), stopped).await
            }
        };
        if let Err(error) = served {
            tracing::error!(%error, "the gRPC listener on TCP ended");
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_may_can_reach_it() {
        let check = |address: &str, files: [&str; 3], want: Option<&str>| {
            let [tls_ca, tls_cert, tls_key] = files.map(str::to_owned);
            let address = address.to_owned();
            let config = Config { address, tls_ca, tls_cert, tls_key, tls_common_name: String::new() };
            match (check(&config), want) {
                (Ok(_), None) => {}
                (Err(error), Some(want)) => assert!(error.starts_with(want), "{config:?}: {error}"),
                (other, _) => panic!("{config:?}: {other:?}"),
            }
        };
        check("127.0.0.1:1", [""; 3], None);
        check("[::1]:1", [""; 3], None);
        check("127.0.0.1:1", ["", "c", "k"], None);
        check("10.0.0.1:1", ["a", "c", "k"], None);
        check("10.0.0.1:1", [""; 3], Some("address: whoever reaches"));
        check("0.0.0.0:1", ["", "c", "k"], Some("address: whoever reaches"));
        check("127.0.0.1:1", ["", "c", ""], Some("tls_cert and tls_key"));
        check("127.0.0.1:1", ["a", "", ""], Some("tls_ca"));
        check("localhost:1", [""; 3], Some("address: \"localhost:1\" is not IP:PORT"));
        let windows = Config { tls_common_name: "x".to_owned(), ..Config::default() };
        assert!(super::check(&windows).unwrap_err().starts_with("tls_common_name"));
    }
}
