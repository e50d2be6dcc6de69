//! The metrics listener: Prometheus text at `/v1/metrics` (containerd's path) and `/metrics`.

use std::net::SocketAddr;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Bytes};
use kevel_contract::metric::{MetricRegistry, Metrics as Registry};
use kevel_plugin::{InitContext, InitError, One, Plugin, deps};
use prometheus::{Encoder as _, TextEncoder};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Server, Servers, Serving, http};

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
                Ok((stream, _)) => {
                    let registry = registry.clone();
                    let answer = move |request: &Request<_>| answer(request, registry.clone());
                    tokio::spawn(http::connection(stream, answer, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a metrics connection");
                    tokio::task::yield_now().await;
                }
            }
        }
    }))
}

fn answer<B>(
    request: &Request<B>,
    registry: MetricRegistry,
) -> impl Future<Output = Response<Full<Bytes>>> + Send + use<B> {
    let refused = if !matches!(*request.method(), Method::GET | Method::HEAD) {
        Some(http::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n"))
    } else if !matches!(request.uri().path(), "/v1/metrics" | "/metrics") {
        Some(http::text(StatusCode::NOT_FOUND, "metrics are at /v1/metrics\n"))
    } else {
        None
    };
    async move {
        match refused {
            Some(refused) => refused,
            None => gather(registry).await,
        }
    }
}

async fn gather(registry: MetricRegistry) -> Response<Full<Bytes>> {
    let encoder = TextEncoder::new();
    // Collectors read small files.
    let gathered = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).map(|()| text)
    });
    let text = match gathered.await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            tracing::error!(%error, "encoding metrics");
            return http::text(StatusCode::INTERNAL_SERVER_ERROR, "metrics can't be encoded\n");
        }
        Err(_) => return http::text(StatusCode::INTERNAL_SERVER_ERROR, "a metric can't be read\n"),
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
            assert_eq!(answer(&request, registry.clone()).await.status(), want, "{path}");
        };
        check(Method::GET, "/v1/metrics", StatusCode::OK).await;
        check(Method::GET, "/metrics", StatusCode::OK).await;
        check(Method::GET, "/", StatusCode::NOT_FOUND).await;
        check(Method::POST, "/metrics", StatusCode::METHOD_NOT_ALLOWED).await;
    }
}
