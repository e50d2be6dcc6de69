//! Collectors of the tests: what OpenTelemetry's own messages say arrived, over gRPC and over HTTP, and one that never
//! answers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use kevel_e2e::until;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

/// A span as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) kind: v1::span::SpanKind,
    /// What went wrong, if something did.
    pub(crate) failure: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
    /// `service.name` of where it comes from.
    pub(crate) service: String,
}

/// What a request to a collector said beside spans.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) path: String,
    pub(crate) authorization: String,
}

#[derive(Clone, Default)]
pub(crate) struct Collector {
    address: Option<SocketAddr>,
    spans: Arc<Mutex<Vec<Span>>>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Collector {
    /// One that speaks gRPC.
    pub(crate) async fn grpc() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().ok(), ..Self::default() };
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        collector
    }

    /// One that speaks HTTP.
    pub(crate) async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().ok(), ..Self::default() };
        let serving = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = serving.clone();
                let answer = service_fn(move |request| collector.clone().answer(request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        collector
    }

    /// One that takes connections and never says anything.
    pub(crate) async fn mute() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().ok(), ..Self::default() };
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
            }
        });
        collector
    }

    /// One that is not there.
    pub(crate) async fn dead() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().ok(), ..Self::default() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address.unwrap())
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let sent = Sent { path: request.uri().path().to_owned(), authorization: header("authorization").to_owned() };
        let body = request.into_body().collect().await.unwrap().to_bytes();
        self.take(sent, ExportTraceServiceRequest::decode(body).unwrap());
        Ok(Response::new(Full::new(ExportTraceServiceResponse::default().encode_to_vec().into())))
    }

    fn take(&self, sent: Sent, request: ExportTraceServiceRequest) {
        self.sent.lock().unwrap().push(sent);
        for of in request.resource_spans {
            let resource = attributes(of.resource.unwrap_or_default().attributes);
            let service = resource.get("service.name").cloned().unwrap_or_default();
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans.map(|span| arrived(span, &service)));
        }
    }

    /// Every span of that name so far.
    pub(crate) fn all(&self, name: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.name.starts_with(name)).cloned().collect()
    }

    /// Every span so far of that trace.
    pub(crate) fn of(&self, trace: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.trace == trace).cloned().collect()
    }

    /// Every request so far.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// Waits for a span of that trace whose name begins so.
    pub(crate) fn wait(&self, trace: &str, name: &str) -> Span {
        let arrived = || self.of(trace).into_iter().find(|span| span.name.starts_with(name));
        let found = until(&format!("the span {name:?}"), arrived);
        found.unwrap_or_else(|error| panic!("{error}; arrived did {:#?}", self.of(trace)))
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.take(Sent::default(), request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn arrived(span: v1::Span, service: &str) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let failed = span.status.clone().filter(|status| status.code() == v1::status::StatusCode::Error);
    assert!(span.start_time_unix_nano > 0 && span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
    Span {
        kind: span.kind(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        failure: failed.map(|status| status.message),
        attributes: attributes(span.attributes),
        service: service.to_owned(),
        name: span.name,
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value.and_then(|value| value.value)))).collect()
}
