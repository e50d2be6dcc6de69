//! The layer that makes OpenTelemetry's spans of `tracing`'s. It is part of the process' subscriber before any plugin
//! starts, and takes no spans until the plugin has a tracer for it.

use std::sync::{Mutex, OnceLock, PoisonError};

use kevel_contract::trace::Propagator;
use opentelemetry::{
    Context,
    global::{BoxedSpan, BoxedTracer},
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanBuilder, TraceContextExt as _, Tracer, noop::NoopTracer},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracer};
use tracing::{Metadata, Span, level_filters::LevelFilter};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::{Layer, Registry, filter::FilterFn, reload};

type Filter = FilterFn<fn(&Metadata<'_>) -> bool>;

/// What the layer's spans are made by. The subscriber is the process's, and so is this.
static TRACER: OnceLock<BoxedTracer> = OnceLock::new();
static FILTER: Mutex<Option<reload::Handle<Filter, Registry>>> = Mutex::new(None);

/// The layer, for a subscriber that has none yet.
pub fn layer() -> Box<dyn Layer<Registry> + Send + Sync> {
    let (filter, handle) = reload::Layer::new(nothing());
    *FILTER.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
    let layer = OpenTelemetryLayer::new(Late)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    layer.with_filter(filter).boxed()
}

/// Trace and span that this thread works for at the moment, if they are recorded.
pub fn current() -> Option<[String; 2]> {
    let context = Context::current();
    let span = context.span();
    let of = span.span_context();
    of.is_valid().then(|| [of.trace_id().to_string(), of.span_id().to_string()])
}

/// Has the layer make spans by this tracer. Once in the life of a process.
pub(crate) fn start(tracer: SdkTracer) -> bool {
    let first = TRACER.set(BoxedTracer::new(Box::new(tracer))).is_ok();
    if first {
        kevel_contract::trace::propagate(Box::new(TraceContext(TraceContextPropagator::new())));
        set(FilterFn::new(ours as fn(&Metadata<'_>) -> bool));
    }
    first
}

/// Has the layer make no spans from now on.
pub(crate) fn stop() {
    set(nothing());
}

fn set(filter: Filter) {
    let handle = FILTER.lock().unwrap_or_else(PoisonError::into_inner);
    // A subscriber that is gone takes no spans anyway.
    let _ = handle.as_ref().map(|handle| handle.reload(filter));
}

/// The spans of our crates, whatever their level; no events.
fn ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with("kevel")
}

fn nothing() -> Filter {
    let none: fn(&Metadata<'_>) -> bool = |_| false;
    FilterFn::new(none).with_max_level_hint(LevelFilter::OFF)
}

/// Makes spans by the tracer that comes later.
struct Late;

impl Tracer for Late {
    type Span = BoxedSpan;

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> BoxedSpan {
        match TRACER.get() {
            Some(tracer) => tracer.build_with_context(builder, parent),
            None => BoxedTracer::new(Box::new(NoopTracer::new())).build_with_context(builder, parent),
        }
    }
}

/// The W3C's Trace Context.
struct TraceContext(TraceContextPropagator);

impl Propagator for TraceContext {
    fn take_over(&self, span: &Span, traceparent: &str, tracestate: Option<&str>) {
        let caller = self.0.extract_with_context(&Context::new(), &Headers { traceparent, tracestate });
        if caller.span().span_context().is_valid() {
            // It fails for a span that was entered already, which stays where it is.
            let _ = span.set_parent(caller);
        }
    }

    fn hand_on(&self, span: &Span) -> Vec<(String, String)> {
        let mut headers = std::collections::HashMap::new();
        self.0.inject_context(&span.context(), &mut headers);
        headers.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }
}

struct Headers<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}
