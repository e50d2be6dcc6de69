//! Counts gRPC calls, their messages and how they end, under the names of the Go gRPC middleware, which dashboards
//! know; CRI's also under those of CRI-O.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Frame, SizeHint},
};
use kevel_contract::metric::{MetricRegistry, Metrics};
use kevel_model::Result;
use kevel_plugin::{InitContext, InitError, Kind, One, Plugin, deps};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use tonic::{Code, Status, body::Body};

/// More methods than all services have. Names beyond that many are a stranger's, and are counted together.
const METHODS: usize = 512;
/// The longest path that is a method's.
const PATH: usize = 128;
/// The path under which strange ones are counted.
const STRANGE: &str = "/unknown/unknown";
const CRI: &str = "runtime.v1.";

/// What counts gRPC calls, whichever listener they come by.
pub(crate) enum GrpcCounting {}

impl Kind for GrpcCounting {
    const TYPE: &'static str = "io.containerd.internal.v1";
    type Handle = Counting;
}

deps! {
    /// Where the counts go.
    pub(crate) struct CountDeps { metrics: One<Metrics> }
}

/// `io.containerd.internal.v1.grpc-counting`.
pub(crate) struct GrpcCounter;

impl Plugin for GrpcCounter {
    type Kind = GrpcCounting;
    const ID: &'static str = "grpc-counting";
    type Config = ();
    type Deps = CountDeps;

    async fn init(_: InitContext, (): (), deps: CountDeps) -> std::result::Result<Counting, InitError> {
        Counting::new(&deps.metrics).map_err(InitError::failed)
    }
}

/// The metrics of all methods. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Counting(Arc<Inner>);

struct Inner {
    started: IntCounterVec,
    handled: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    seconds: Option<HistogramVec>,
    crio_operations: IntCounterVec,
    crio_errors: IntCounterVec,
    crio_seconds: HistogramVec,
    methods: Mutex<HashMap<String, Arc<Method>>>,
}

/// The metrics of one method.
struct Method {
    labels: [String; 3],
    started: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    seconds: Option<Histogram>,
}

impl Counting {
    /// Registers the metrics.
    pub(crate) fn new(registry: &MetricRegistry) -> Result<Self> {
        let labels = ["grpc_type", "grpc_service", "grpc_method"];
        let with_code = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
        let seconds = || registry.seconds("grpc_server_handling_seconds", "time of gRPC calls", &labels);
        let crio = "container_runtime_crio_operations";
        Ok(Self(Arc::new(Inner {
            started: registry.counters("grpc_server_started_total", "gRPC calls that began", &labels)?,
            handled: registry.counters("grpc_server_handled_total", "gRPC calls that ended", &with_code)?,
            received: registry.counters("grpc_server_msg_received_total", "messages of gRPC clients", &labels)?,
            sent: registry.counters("grpc_server_msg_sent_total", "messages to gRPC clients", &labels)?,
            seconds: registry.wants_grpc_histogram().then(seconds).transpose()?,
            crio_operations: registry.counters(&format!("{crio}_total"), "CRI calls that ended", &["operation"])?,
            crio_errors: registry.counters(&format!("{crio}_errors_total"), "CRI calls that failed", &["operation"])?,
            crio_seconds: registry.seconds(&format!("{crio}_latency_seconds"), "time of CRI calls", &["operation"])?,
            methods: Mutex::default(),
        })))
    }

    fn method(&self, path: &str) -> Arc<Method> {
        let mut methods = self.0.methods.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(method) = methods.get(path) {
            return method.clone();
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_');
        let known = methods.len() < METHODS && path.len() <= PATH && path.bytes().all(plain);
        let path = if known { path } else { STRANGE };
        let (service, name) = path.trim_start_matches('/').split_once('/').unwrap_or(("unknown", "unknown"));
        let labels = [kind(service, name), service, name];
        let inner = &self.0;
        let method = Arc::new(Method {
            labels: labels.map(str::to_owned),
            started: inner.started.with_label_values(&labels),
            received: inner.received.with_label_values(&labels),
            sent: inner.sent.with_label_values(&labels),
            seconds: inner.seconds.as_ref().map(|seconds| seconds.with_label_values(&labels)),
        });
        methods.insert(path.to_owned(), method.clone());
        method
    }

    fn ended(&self, method: &Method, began: Instant, code: Code) {
        let [kind, service, name] = &method.labels;
        let code_name = code_name(code);
        self.0.handled.with_label_values(&[kind.as_str(), service, name, code_name]).inc();
        let took = began.elapsed().as_secs_f64();
        if let Some(seconds) = &method.seconds {
            seconds.observe(took);
        }
        if service.starts_with(CRI) {
            self.0.crio_operations.with_label_values(&[name.as_str()]).inc();
            self.0.crio_seconds.with_label_values(&[name.as_str()]).observe(took);
            if code != Code::Ok {
                self.0.crio_errors.with_label_values(&[name.as_str()]).inc();
            }
        }
    }
}

/// Which side sends more than one message.
fn kind(service: &str, method: &str) -> &'static str {
    let service = service.rsplit('.').next().unwrap_or(service);
    match (service, method) {
        ("Content", "Write") | ("Streaming", "Stream") => "bidi_stream",
        ("Content" | "Snapshots" | "Mounts", "List")
        | ("Content", "Read")
        | ("Containers", "ListStream")
        | ("Events", "Subscribe")
        | ("Health", "Watch")
        | ("RuntimeService", "GetContainerEvents") => "server_stream",
        ("RuntimeService" | "ImageService", name) if name.starts_with("Stream") => "server_stream",
        _ => "unary",
    }
}

/// The code as Go writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

impl<S> tower::Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, counting: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    counting: Counting,
}

type Answering<E> = Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, E>> + Send>>;

impl<S> tower::Service<Request<Body>> for Counted<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = self.counting.method(request.uri().path());
        method.started.inc();
        let received = method.received.clone();
        let mut end = End { call: Some((self.counting.clone(), method.clone(), Instant::now())) };
        let request = request.map(|body| Body::new(Messages::new(body, received, None)));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (head, body) = answer.await?.into_parts();
            // A call that failed before its first message says so in the head and has no trailers.
            if let Some(status) = Status::from_header_map(&head.headers) {
                end.with(status.code());
            }
            Ok(Response::from_parts(head, Body::new(Messages::new(body, method.sent.clone(), Some(end)))))
        })
    }
}

/// The end of a call, put down once. A call that is dropped without one was given up by its client.
struct End {
    call: Option<(Counting, Arc<Method>, Instant)>,
}

impl End {
    fn with(&mut self, code: Code) {
        if let Some((counting, method, began)) = self.call.take() {
            counting.ended(&method, began, code);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.with(Code::Cancelled);
    }
}

/// A body whose messages are counted as they pass.
struct Messages {
    inner: Body,
    counter: IntCounter,
    scan: Scan,
    end: Option<End>,
}

impl Messages {
    fn new(inner: Body, counter: IntCounter, end: Option<End>) -> Self {
        Self { inner, counter, scan: Scan::default(), end }
    }
}

impl hyper::body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if let Some(data) = frame.data_ref() {
                let messages = self.scan.feed(data);
                self.counter.inc_by(messages);
            }
            if let (Some(trailers), Some(end)) = (frame.trailers_ref(), &mut self.end) {
                end.with(code_of(trailers));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn code_of(trailers: &HeaderMap) -> Code {
    Status::from_header_map(trailers).map_or(Code::Ok, |status| status.code())
}

/// Finds the beginnings of messages: a byte of flags, four bytes of length, and that many bytes.
#[derive(Default)]
struct Scan {
    head: [u8; 5],
    have: usize,
    rest: usize,
}

impl Scan {
    /// How many messages end their head in this piece.
    fn feed(&mut self, mut data: &[u8]) -> u64 {
        let mut messages = 0;
        while !data.is_empty() {
            if self.rest > 0 {
                let skip = self.rest.min(data.len());
                self.rest -= skip;
                data = &data[skip..];
                continue;
            }
            let take = (5 - self.have).min(data.len());
            self.head[self.have..self.have + take].copy_from_slice(&data[..take]);
            self.have += take;
            data = &data[take..];
            if self.have == 5 {
                let [_, a, b, c, d] = self.head;
                self.rest = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                self.have = 0;
                messages += 1;
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, Full};
    use tower::{Layer as _, Service as _};

    use super::*;

    fn message(size: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(size).unwrap().to_be_bytes());
        bytes.extend(std::iter::repeat_n(7, size));
        bytes
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let whole = [message(3), message(0), message(300)].concat();
        for cut in 1..whole.len() {
            let mut scan = Scan::default();
            assert_eq!(whole.chunks(cut).map(|piece| scan.feed(piece)).sum::<u64>(), 3, "{cut}");
        }
    }

    fn value(registry: &MetricRegistry, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let is = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(key, value)| {
                metric.get_label().iter().any(|label| label.name() == *key && label.value() == *value)
            })
        };
        family.get_metric().iter().find(is).map(|metric| metric.get_counter().get_value())
    }

    async fn call(counting: &Counting, path: &str, trailers: Option<&'static str>) {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            request.into_body().collect().await.unwrap();
            let mut headers = HeaderMap::new();
            let mut response = Response::new(Body::empty());
            match trailers {
                Some(code) => {
                    headers.insert("grpc-status", code.parse().unwrap());
                    let body = Full::new(Bytes::from([message(1), message(2)].concat()));
                    *response.body_mut() = Body::new(body.with_trailers(async move { Some(Ok(headers)) }));
                }
                None => drop(response.headers_mut().insert("grpc-status", "5".parse().unwrap())),
            }
            Ok::<_, Infallible>(response)
        });
        let request = Request::builder().uri(path).body(Body::new(Full::new(Bytes::from(message(4))))).unwrap();
        let response = counting.layer(service).call(request).await.unwrap();
        let _ = response.into_body().collect().await;
    }

    #[tokio::test]
    async fn calls_are_counted_to_their_end() {
        let registry = MetricRegistry::new(true);
        let counting = Counting::new(&registry).unwrap();
        let path = "/runtime.v1.RuntimeService/Version";
        call(&counting, path, Some("0")).await;
        call(&counting, path, None).await;
        let method = [("grpc_service", "runtime.v1.RuntimeService"), ("grpc_method", "Version")];
        let of = |name: &str| value(&registry, name, &method);
        assert_eq!((of("grpc_server_started_total"), of("grpc_server_msg_received_total")), (Some(2.0), Some(2.0)));
        assert_eq!(of("grpc_server_msg_sent_total"), Some(2.0));
        let handled = |code| value(&registry, "grpc_server_handled_total", &[method[1], ("grpc_code", code)]);
        assert_eq!((handled("OK"), handled("NotFound"), handled("Canceled")), (Some(1.0), Some(1.0), None));
        let errors = value(&registry, "container_runtime_crio_operations_errors_total", &[("operation", "Version")]);
        assert_eq!(errors, Some(1.0));
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_is_cancelled() {
        let registry = MetricRegistry::default();
        let counting = Counting::new(&registry).unwrap();
        let forever =
            tower::service_fn(|_: Request<Body>| std::future::pending::<std::result::Result<_, Infallible>>());
        let request = Request::builder().uri("/a.B/C").body(Body::empty()).unwrap();
        drop(counting.layer(forever).call(request));
        assert_eq!(value(&registry, "grpc_server_handled_total", &[("grpc_code", "Canceled")]), Some(1.0));
    }

    #[test]
    fn strangers_make_no_labels() {
        let counting = Counting::new(&MetricRegistry::default()).unwrap();
        for path in ["/a.B/x y", &format!("/a.B/{}", "x".repeat(200))] {
            assert_eq!(counting.method(path).labels[2], "unknown");
        }
        for number in 0..METHODS + 10 {
            counting.method(&format!("/a.B/m{number}"));
        }
        assert_eq!(counting.method("/a.B/late").labels[2], "unknown");
        assert_eq!(counting.method("/a.B/m1").labels[2], "m1");
        assert_eq!(kind("containerd.services.content.v1.Content", "Write"), "bidi_stream");
        assert_eq!(kind("runtime.v1.ImageService", "StreamImages"), "server_stream");
    }
}
