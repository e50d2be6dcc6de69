//! The metrics listener: Prometheus text at `/v1/metrics` (containerd's path) and `/metrics`.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Bytes, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use kevel_contract::metric::{MetricRegistry, Metrics as Registry};
use kevel_plugin::{InitContext, InitError, One, Plugin, deps};
use prometheus::{Encoder as _, TextEncoder};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Server, Servers, Serving};

/// `io.containerd.server.v1.metrics`: off unless it has an address.
pub(crate) struct Metrics;

/// The listener's table.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    /// `host:port` to listen at; no listener when empty.
    pub address: String,
}

deps! {
    /// What is served.
    pub(crate) struct Deps { metrics: One<Registry> }
}

impl Plugin for Metrics {
    type Kind = Servers;
    const ID: &'static str = "metrics";
    type Config = Config;
    type Deps = Deps;

    async fn init(cx: InitContext, config: Config, deps: Deps) -> Result<Server, InitError> {
        if config.address.is_empty() {
            return Err(InitError::Skip("no address is configured".to_owned()));
        }
        let address: SocketAddr = config.address.parse().map_err(|_| InitError::Config {
            uri: cx.uri.clone(),
            message: format!("address: {:?} is not IP:PORT", config.address),
        })?;
        let registry = deps.metrics.0;
        Ok(Server::new(move |stop| listen(address, registry.clone(), stop)))
    }
}

async fn listen(address: SocketAddr, registry: MetricRegistry, stop: CancellationToken) -> anyhow::Result<Serving> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening at {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "metrics are served");
    Ok(Box::pin(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, registry.clone(), stop.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "accepting a metrics connection");
                    tokio::task::yield_now().await;
                }
            }
        }
    }))
}

async fn connection(stream: TcpStream, registry: MetricRegistry, stop: CancellationToken) {
    let service = service_fn(|request| {
        let registry = registry.clone();
        async move { Ok::<_, Infallible>(answer(&request, &registry).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    // A scraper that opens a connection and says nothing must not keep it.
    server.timer(TokioTimer::new()).header_read_timeout(std::time::Duration::from_secs(30));
    tokio::select! {
        served = server.serve_connection(TokioIo::new(stream), service) => {
            if let Err(error) = served {
                tracing::debug!(%error, "a metrics connection ended");
            }
        }
        () = stop.cancelled() => {}
    }
}

async fn answer<B>(request: &Request<B>, registry: &MetricRegistry) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
    }
    if !matches!(request.uri().path(), "/v1/metrics" | "/metrics") {
        return plain(StatusCode::NOT_FOUND, "metrics are at /v1/metrics\n");
    }
    let encoder = TextEncoder::new();
    let registry = registry.clone();
    // Collectors read small files.
    let gathered = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).map(|()| text)
    });
    let text = match gathered.await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            tracing::error!(%error, "encoding metrics");
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics can't be encoded\n");
        }
        Err(_) => return plain(StatusCode::INTERNAL_SERVER_ERROR, "a metric can't be read\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    if let Ok(kind) = encoder.format_type().parse() {
        response.headers_mut().insert("content-type", kind);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_only_where_metrics_are() {
        let registry = MetricRegistry::default();
        let check = async |method: Method, path: &str, want: StatusCode| {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            assert_eq!(answer(&request, &registry).await.status(), want, "{path}");
        };
        check(Method::GET, "/v1/metrics", StatusCode::OK).await;
        check(Method::GET, "/metrics", StatusCode::OK).await;
        check(Method::GET, "/", StatusCode::NOT_FOUND).await;
        check(Method::POST, "/metrics", StatusCode::METHOD_NOT_ALLOWED).await;
    }
}
