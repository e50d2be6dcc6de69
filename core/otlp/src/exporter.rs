//! The exporter: OpenTelemetry's own over gRPC or HTTP, held to a deadline, watched and counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kevel_contract::metric::MetricRegistry;
use opentelemetry_otlp::{
    Protocol as Wire, SpanExporter as Inner, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
    tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use prometheus::IntCounter;
use tokio::runtime::Handle;

use crate::{
    config::{Protocol, Target},
    http::Http,
};

/// Spans by what became of them.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    exported: IntCounter,
    failed: IntCounter,
    /// Those that ended; the rest is queued, or was dropped because the queue was full.
    pub(crate) ended: IntCounter,
}

impl Counters {
    pub(crate) fn new(registry: &MetricRegistry) -> kevel_model::Result<Self> {
        let spans = registry.counters("kevel_otlp_spans_total", "spans by what became of them", &["outcome"])?;
        let of = |outcome: &str| spans.with_label_values(&[outcome]);
        Ok(Self { exported: of("exported"), failed: of("failed"), ended: of("ended") })
    }
}

/// Sends spans from a thread that is not the runtime's, and is never longer about it than the target's timeout.
#[derive(Debug)]
pub(crate) struct Exporter {
    inner: Arc<Inner>,
    runtime: Handle,
    timeout: Duration,
    counters: Counters,
    /// Whether the last sending failed; only changes are logged.
    failing: AtomicBool,
}

impl Exporter {
    /// An exporter for that target; nothing is connected yet. In the context of the runtime.
    pub(crate) fn new(target: &Target, counters: Counters) -> Result<Self, String> {
        let builder = Inner::builder();
        let endpoint = target.endpoint.to_string();
        let inner = match target.protocol {
            Protocol::Grpc => {
                let mut builder = builder.with_tonic();
                if target.endpoint.scheme_str() == Some("https") {
                    builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
                }
                builder.with_endpoint(endpoint).with_timeout(target.timeout).build()
            }
            Protocol::Http => {
                let client = Http::new(&target.endpoint).map_err(|error| format!("certificates: {error}"))?;
                let builder = builder.with_http().with_http_client(client).with_protocol(Wire::HttpBinary);
                builder.with_endpoint(endpoint).with_timeout(target.timeout).build()
            }
        };
        let inner = Arc::new(inner.map_err(|error| error.to_string())?);
        let (runtime, timeout) = (Handle::current(), target.timeout);
        Ok(Self { inner, runtime, timeout, counters, failing: AtomicBool::new(false) })
    }

    fn note(&self, spans: u64, result: &OTelSdkResult) {
        match result {
            Ok(()) => {
                self.counters.exported.inc_by(spans);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces arrive at the collector again");
                }
            }
            Err(error) => {
                self.counters.failed.inc_by(spans);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "traces do not arrive at the collector, and are lost until they do");
                }
            }
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let (inner, timeout) = (self.inner.clone(), self.timeout);
        let sending = self.runtime.spawn(async move {
            let sent = tokio::time::timeout(timeout, inner.export(batch)).await;
            sent.unwrap_or(Err(OTelSdkError::Timeout(timeout)))
        });
        let result = sending.await.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())));
        self.note(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Nothing is being sent yet, so that nobody else holds it.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}
