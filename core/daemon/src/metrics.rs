//! The registry of metrics that plugins share, and what the daemon itself puts there: what it was built from, what its
//! process uses, and every call through a contract handle. gRPC calls are counted in `server::count`, where they arrive.

use std::time::Duration;

use kevel_contract::{
    Observer,
    metric::{MetricRegistry, Metrics},
};
use kevel_model::{Code, Result};
use kevel_plugin::{InitContext, InitError, Plugin};
use prometheus::{HistogramVec, IntCounterVec};
use serde::{Deserialize, Serialize};

use crate::process;

/// `io.containerd.metrics.v1.grpc-prometheus`.
pub(crate) struct Prometheus;

/// Its table.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Keep the time of every gRPC method as a histogram.
    pub grpc_histogram: bool,
}

impl Plugin for Prometheus {
    type Kind = Metrics;
    const ID: &'static str = "grpc-prometheus";
    type Config = Config;
    type Deps = ();

    async fn init(_: InitContext, config: Config, (): ()) -> std::result::Result<MetricRegistry, InitError> {
        let registry = MetricRegistry::new(config.grpc_histogram);
        own(&registry).map_err(InitError::failed)?;
        Ok(registry)
    }
}

fn own(registry: &MetricRegistry) -> Result<()> {
    // The names that dashboards for containerd ask for.
    let labels = ["version", "revision"];
    let info = registry.gauges("containerd_build_info_total", "what the daemon was built from", &labels)?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), ""]).set(1);
    registry.register(process::Process::new())?;
    let labels = ["backend", "method"];
    let took = registry.seconds("kevel_call_seconds", "time of calls from plugin to plugin", &labels)?;
    let labels = ["backend", "method", "code"];
    let failed = registry.counters("kevel_call_failures_total", "failed calls from plugin to plugin", &labels)?;
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
