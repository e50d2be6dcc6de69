//! Metrics of plugins, under containerd's names.

use std::{sync::OnceLock, time::Duration};

use kevel_contract::metric::MetricRegistry;
use kevel_model::{Error, Result};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge};

struct Metrics {
    invocations: IntCounterVec,
    adjustments: IntCounterVec,
    active: IntGauge,
    latency: HistogramVec,
}

/// Of the daemon; nothing is counted before they are installed.
static METRICS: OnceLock<Metrics> = OnceLock::new();

/// Registers the metrics. Call it once, before plugins start.
///
/// # Errors
/// When a name is taken.
pub(crate) fn install(registry: &MetricRegistry) -> Result<()> {
    let invocations = registry.counters(
        "containerd_nri_plugin_invocations_total",
        "requests to NRI plugins",
        &["plugin", "operation", "status", "error"],
    )?;
    let adjustments = registry.counters(
        "containerd_nri_plugin_adjustments_total",
        "updates and evictions that NRI plugins asked for",
        &["plugin", "operation", "type"],
    )?;
    let wrong = |error| Error::internal("metric of NRI").with_source(error);
    let active = IntGauge::new("containerd_nri_active_plugins_total", "NRI plugins that are there").map_err(wrong)?;
    registry.register(active.clone())?;
    let options = HistogramOpts::new("containerd_nri_plugin_latency_seconds", "time that NRI plugins took");
    let latency = HistogramVec::new(options, &["plugin", "operation"]).map_err(wrong)?;
    registry.register(latency.clone())?;
    let _ = METRICS.set(Metrics { invocations, adjustments, active, latency });
    Ok(())
}

/// A request that was made; `error` is empty when it was answered.
pub(crate) fn invoked(plugin: &str, operation: &str, took: Duration, error: &str) {
    if let Some(metrics) = METRICS.get() {
        let status = if error.is_empty() { "success" } else { "error" };
        metrics.invocations.with_label_values(&[plugin, operation, status, error]).inc();
        metrics.latency.with_label_values(&[plugin, operation]).observe(took.as_secs_f64());
    }
}

/// What a plugin asked for in its answer.
pub(crate) fn adjusted(plugin: &str, operation: &str, updates: usize, evictions: usize) {
    let Some(metrics) = METRICS.get() else { return };
    for (kind, count) in [("update", updates), ("evict", evictions)] {
        if count > 0 {
            metrics.adjustments.with_label_values(&[plugin, operation, kind]).inc_by(count as u64);
        }
    }
}

/// How many plugins there are now.
pub(crate) fn active(count: usize) {
    if let Some(metrics) = METRICS.get() {
        metrics.active.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
