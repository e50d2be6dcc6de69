//! The HTTP client of the exporter: hyper with the system's certificates, for a thread that is not the runtime's.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{HttpClient, HttpError};

/// An answer of a collector is not longer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Talks to one collector.
#[derive(Debug)]
pub(crate) enum Http {
    /// Which needs no certificates of the system's.
    Plain(Client<HttpConnector, Full<Bytes>>),
    Secured(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Http {
    /// A client for that URL. Connects when there is something to send.
    pub(crate) fn new(endpoint: &Uri) -> std::io::Result<Self> {
        let builder = Client::builder(TokioExecutor::new());
        if endpoint.scheme_str() != Some("https") {
            return Ok(Self::Plain(builder.build(HttpConnector::new())));
        }
        let connector = HttpsConnectorBuilder::new().with_native_roots()?.https_only().enable_http1().build();
        Ok(Self::Secured(builder.build(connector)))
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = request.map(Full::new);
        let response = match self {
            Self::Plain(client) => client.request(request).await?,
            Self::Secured(client) => client.request(request).await?,
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}
