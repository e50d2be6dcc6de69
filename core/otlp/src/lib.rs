//! Traces over OTLP: containerd's plugins `io.containerd.tracing.processor.v1.otlp` and `io.containerd.internal.v1.tracing`,
//! and what turns the daemon's `tracing` spans into OpenTelemetry's. Which spans there are is `contract::trace`'s and its
//! users' business. A daemon links this crate only when it is built with the feature `otlp`.
//!
//! Nothing here is in the way of a call: spans that have ended wait in a queue with an end, a thread of its own sends them,
//! every sending has a deadline, and what does not fit or does not arrive is lost and counted.

mod config;
mod exporter;
mod http;
mod layer;
mod plugin;

pub use layer::{current, layer};
pub use plugin::{Otlp, Tracing};

/// Adds the plugins.
pub fn register(registry: &mut kevel_plugin::Registry) {
    registry.add::<Otlp>().add::<Tracing>();
}
