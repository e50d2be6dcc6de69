//! The two plugins: the processor, which has an exporter and a queue before it, and the tracer of the daemon.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kevel_contract::metric::Metrics;
use kevel_plugin::{All, InitContext, InitError, Kind, One, Plugin, deps};
use opentelemetry::{Context, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor},
};

use crate::{
    config::{Environment, OtlpConfig, Protocol, Sampling, Target, TracingConfig, service_name},
    exporter::{Counters, Exporter},
    layer,
};

/// How long the end of the daemon waits for the last spans to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// Processors of spans: `io.containerd.tracing.processor.v1`.
pub enum Processors {}

impl Kind for Processors {
    const TYPE: &'static str = "io.containerd.tracing.processor.v1";
    type Handle = Processor;
}

/// A processor, for the one who makes the tracer.
#[derive(Clone)]
pub struct Processor(Arc<Mutex<Option<Counted>>>);

/// `io.containerd.internal.v1`, as far as it is about traces.
pub enum Tracers {}

impl Kind for Tracers {
    const TYPE: &'static str = "io.containerd.internal.v1";
    type Handle = ();
}

deps! {
    /// Where spans are counted.
    pub struct OtlpDeps { metrics: One<Metrics> }
}

/// `io.containerd.tracing.processor.v1.otlp`.
pub struct Otlp;

impl Plugin for Otlp {
    type Kind = Processors;
    const ID: &'static str = "otlp";
    type Config = OtlpConfig;
    type Deps = OtlpDeps;

    async fn init(cx: InitContext, config: OtlpConfig, deps: OtlpDeps) -> Result<Processor, InitError> {
        let environment = Environment::new(|name| cx.property(name));
        let wrong = |message: String| InitError::Config { uri: cx.uri.clone(), message };
        if let Some(why) = environment.off().map_err(wrong)? {
            return Err(InitError::Skip(why));
        }
        let Some(target) = Target::read(&config, &environment).map_err(wrong)? else {
            return Err(InitError::Skip("no endpoint is configured".to_owned()));
        };
        for variable in environment.ignored() {
            tracing::warn!(variable, "traces: this variable of the environment is not acted on");
        }
        let counters = Counters::new(&deps.metrics).map_err(InitError::failed)?;
        let exporter = Exporter::new(&target, counters.clone()).map_err(wrong)?;
        cx.export("endpoint", target.endpoint.to_string());
        cx.export("protocol", if target.protocol == Protocol::Grpc { "grpc" } else { "http/protobuf" });
        // Its sizes are those of the variables OTEL_BSP_*, or OpenTelemetry's own.
        let inner = BatchSpanProcessor::builder(exporter).build();
        Ok(Processor(Arc::new(Mutex::new(Some(Counted { inner, counters })))))
    }
}

deps! {
    /// Who gets the spans.
    pub struct TracingDeps { processors: All<Processors> }
}

/// `io.containerd.internal.v1.tracing`.
pub struct Tracing;

impl Plugin for Tracing {
    type Kind = Tracers;
    const ID: &'static str = "tracing";
    type Config = TracingConfig;
    type Deps = TracingDeps;

    async fn init(cx: InitContext, config: TracingConfig, deps: TracingDeps) -> Result<(), InitError> {
        let environment = Environment::new(|name| cx.property(name));
        let wrong = |message: String| InitError::Config { uri: cx.uri.clone(), message };
        if deps.processors.0.is_empty() {
            return Err(InitError::Skip("there is no tracing processor".to_owned()));
        }
        let sampling = Sampling::read(&config, &environment).map_err(wrong)?;
        let resource = match service_name(&config, &environment) {
            Some(name) => Resource::builder().with_service_name(name),
            None => Resource::builder(),
        };
        let mut builder = SdkTracerProvider::builder().with_resource(resource.build()).with_sampler(sampler(sampling));
        for processor in deps.processors.0.into_values() {
            if let Some(processor) = processor.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
                builder = builder.with_span_processor(processor);
            }
        }
        let provider = builder.build();
        if !layer::start(provider.tracer("keveld")) {
            return Err(InitError::Skip("this process has a tracer already".to_owned()));
        }
        cx.on_close(|| close(provider));
        Ok(())
    }
}

/// Sends what is left, for a while.
async fn close(provider: SdkTracerProvider) {
    layer::stop();
    match tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the last spans are lost"),
        Err(error) => tracing::warn!(%error, "sending the last spans"),
    }
}

fn sampler(sampling: Sampling) -> Sampler {
    // Explicitly, because a ratio draws, and all is all.
    let sampler = match sampling.ratio {
        1.0.. => Sampler::AlwaysOn,
        0.0 => Sampler::AlwaysOff,
        ratio => Sampler::TraceIdRatioBased(ratio),
    };
    if sampling.by_parent { Sampler::ParentBased(Box::new(sampler)) } else { sampler }
}

/// The queue and what counts the spans that come to it.
#[derive(Debug)]
struct Counted {
    inner: BatchSpanProcessor,
    counters: Counters,
}

impl SpanProcessor for Counted {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.counters.ended.inc();
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
