//! The daemon's own metrics: what it was built from, every call through a contract handle, and every gRPC call.

use std::{
    sync::OnceLock,
    task::{Context, Poll},
    time::Duration,
};

use kevel_contract::Observer;
use kevel_model::Code;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Makes the metrics and has contract handles report to them. Called once, before plugins start.
pub(crate) fn install() {
    let registry = prometheus::default_registry();
    if let Err(error) = build_info(registry).and_then(|()| calls(registry)).and_then(|()| requests(registry)) {
        tracing::error!(%error, "can't register metrics");
    }
}

fn build_info(registry: &Registry) -> prometheus::Result<()> {
    // The names that dashboards for containerd ask for.
    let info = IntGaugeVec::new(
        Opts::new("containerd_build_info_total", "what the daemon was built from"),
        &["version", "revision"],
    )?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), ""]).set(1);
    registry.register(Box::new(info))
}

fn calls(registry: &Registry) -> prometheus::Result<()> {
    let labels = ["backend", "method"];
    let buckets = prometheus::exponential_buckets(0.0001, 4.0, 10)?; // 0.1 ms to 26 s
    let took = HistogramVec::new(
        HistogramOpts::new("kevel_call_seconds", "time of calls from plugin to plugin").buckets(buckets),
        &labels,
    )?;
    let failed = IntCounterVec::new(
        Opts::new("kevel_call_failures_total", "failed calls from plugin to plugin"),
        &["backend", "method", "code"],
    )?;
    registry.register(Box::new(took.clone()))?;
    registry.register(Box::new(failed.clone()))?;
    kevel_contract::observe(Box::new(Calls { took, failed }));
    Ok(())
}

struct Calls {
    took: HistogramVec,
    failed: IntCounterVec,
}

impl Observer for Calls {
    fn called(&self, backend: &str, method: &'static str, took: Duration, failure: Option<Code>) {
        self.took.with_label_values(&[backend, method]).observe(took.as_secs_f64());
        if let Some(code) = failure {
            self.failed.with_label_values(&[backend, method, &format!("{code:?}")]).inc();
        }
    }
}

static STARTED: OnceLock<IntCounterVec> = OnceLock::new();

fn requests(registry: &Registry) -> prometheus::Result<()> {
    // The name and labels of the Go gRPC middleware, which dashboards know.
    let labels = ["grpc_service", "grpc_method"];
    let started = IntCounterVec::new(Opts::new("grpc_server_started_total", "gRPC calls that began"), &labels)?;
    registry.register(Box::new(started.clone()))?;
    let _ = STARTED.set(started);
    Ok(())
}

/// Counts gRPC calls as they begin.
#[derive(Clone, Copy)]
pub(crate) struct Counting;

impl<S> tower::Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted(inner)
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(crate) struct Counted<S>(S);

impl<S, B> tower::Service<hyper::Request<B>> for Counted<S>
where
    S: tower::Service<hyper::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: hyper::Request<B>) -> S::Future {
        // A path is `/package.Service/Method`. What a stranger makes up must not become a label.
        let path = request.uri().path().trim_start_matches('/');
        if let (Some(started), Some((service, method))) = (STARTED.get(), path.split_once('/'))
            && ["containerd.", "runtime.v1.", "grpc.health."].iter().any(|known| service.starts_with(known))
            && (service.len() + method.len() < 96 && method.bytes().all(|b| b.is_ascii_alphanumeric()))
        {
            started.with_label_values(&[service, method]).inc();
        }
        self.0.call(request)
    }
}
