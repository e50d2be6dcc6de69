//! Spans: what of the daemon's work is seen in traces, and how a trace comes in from a caller and goes on to a shim.
//!
//! A span is one of `tracing`, at a level that no log shows by default. Who collects traces takes the spans of our crates
//! whatever their level; where nobody does, they are not made and cost a look at a flag. Fields whose names begin with
//! `otel.` say how a span is called and how it ended, as `tracing-opentelemetry` wants them.

use std::{
    error::Error,
    fmt::{Arguments, Display},
    sync::OnceLock,
};

use tracing::{Instrument as _, Span, field::Empty};

/// Carries traces over the borders of this process, in the headers of the W3C's Trace Context.
pub trait Propagator: Send + Sync {
    /// Makes a span that was not entered yet a part of the trace that a caller's headers name.
    fn take_over(&self, span: &Span, traceparent: &str, tracestate: Option<&str>);
    /// The headers by which somebody else goes on with the span's trace.
    fn hand_on(&self, span: &Span) -> Vec<(String, String)>;
}

static PROPAGATOR: OnceLock<Box<dyn Propagator>> = OnceLock::new();

/// Sets the propagator of this process; the first one stays.
pub fn propagate(propagator: Box<dyn Propagator>) {
    let _ = PROPAGATOR.set(propagator);
}

/// Makes a span that was not entered yet a part of the trace that a caller's headers name, if they name one.
pub fn take_over(span: &Span, traceparent: Option<&str>, tracestate: Option<&str>) {
    if let (false, Some(propagator), Some(traceparent)) = (span.is_disabled(), PROPAGATOR.get(), traceparent) {
        propagator.take_over(span, traceparent, tracestate);
    }
}

/// The headers by which somebody else goes on with the span's trace; none where nobody collects traces.
pub fn hand_on(span: &Span) -> Vec<(String, String)> {
    match PROPAGATOR.get() {
        Some(propagator) if !span.is_disabled() => propagator.hand_on(span),
        _ => Vec::new(),
    }
}

/// A span of that name below the one that is entered. Where none is, it is nobody's trace that goes on, and none is made:
/// what the daemon looks at by itself every second would be nothing but noise.
pub fn span(name: impl Display) -> Span {
    if !tracing::span_enabled!(tracing::Level::TRACE) || Span::current().is_none() {
        return Span::none();
    }
    begin(name)
}

/// A span of that name that may be the first of its trace.
pub fn begin(name: impl Display) -> Span {
    tracing::trace_span!(
        "span",
        otel.name = %name,
        otel.kind = Empty,
        otel.status_description = Empty,
        object = Empty,
    )
}

/// A span of that name below `parent`.
pub fn child(parent: &Span, name: impl Display) -> Span {
    tracing::trace_span!(parent: parent, "span", otel.name = %name)
}

/// Does work in a span of [`span`] that says how it ended. The span begins at once.
pub fn within<T, E, F>(name: Arguments<'_>, work: F) -> impl Future<Output = Result<T, E>> + use<T, E, F>
where
    E: Error,
    F: Future<Output = Result<T, E>>,
{
    let span = span(name);
    async move {
        let result = work.instrument(span.clone()).await;
        if let Err(error) = &result {
            failed(&span, error);
        }
        result
    }
}

/// Notes that what a span stands for failed.
pub fn failed(span: &Span, error: &dyn Error) {
    if !span.is_disabled() {
        span.record("otel.status_description", kevel_plugin::chain(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_collector_nothing_is_made() {
        let name = std::fmt::from_fn(|_| panic!("the name of a span that nobody collects was asked for"));
        let span = begin(&name);
        assert!(span.is_disabled() && child(&span, &name).is_disabled() && super::span(&name).is_disabled());
        take_over(&span, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), None);
        assert!(hand_on(&span).is_empty());
        failed(&span, &std::fmt::Error);
    }
}
