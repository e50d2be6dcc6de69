//! Metrics of plugins, under containerd's names.

use std::{sync::LazyLock, time::Duration};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

struct Metrics {
    invocations: IntCounterVec,
    adjustments: IntCounterVec,
    active: IntGauge,
    latency: HistogramVec,
}

/// `None` when they could not be registered, which is logged once.
static METRICS: LazyLock<Option<Metrics>> = LazyLock::new(|| match register(prometheus::default_registry()) {
    Ok(metrics) => Some(metrics),
    Err(error) => {
        tracing::error!(%error, "can't register metrics of NRI");
        None
    }
});

fn register(registry: &Registry) -> prometheus::Result<Metrics> {
    let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    };
    let invocations = counter(
        "containerd_nri_plugin_invocations_total",
        "requests to NRI plugins",
        &["plugin", "operation", "status", "error"],
    )?;
    let adjustments = counter(
        "containerd_nri_plugin_adjustments_total",
        "updates and evictions that NRI plugins asked for",
        &["plugin", "operation", "type"],
    )?;
    let active = IntGauge::new("containerd_nri_active_plugins_total", "NRI plugins that are there")?;
    registry.register(Box::new(active.clone()))?;
    let latency = HistogramVec::new(
        HistogramOpts::new("containerd_nri_plugin_latency_seconds", "time that NRI plugins took"),
        &["plugin", "operation"],
    )?;
    registry.register(Box::new(latency.clone()))?;
    Ok(Metrics { invocations, adjustments, active, latency })
}

/// A request that was made; `error` is empty when it was answered.
pub(crate) fn invoked(plugin: &str, operation: &str, took: Duration, error: &str) {
    if let Some(metrics) = &*METRICS {
        let status = if error.is_empty() { "success" } else { "error" };
        metrics.invocations.with_label_values(&[plugin, operation, status, error]).inc();
        metrics.latency.with_label_values(&[plugin, operation]).observe(took.as_secs_f64());
    }
}

/// What a plugin asked for in its answer.
pub(crate) fn adjusted(plugin: &str, operation: &str, updates: usize, evictions: usize) {
    let Some(metrics) = &*METRICS else { return };
    for (kind, count) in [("update", updates), ("evict", evictions)] {
        if count > 0 {
            metrics.adjustments.with_label_values(&[plugin, operation, kind]).inc_by(count as u64);
        }
    }
}

/// How many plugins there are now.
pub(crate) fn active(count: usize) {
    if let Some(metrics) = &*METRICS {
        metrics.active.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
