//! Where plugins put what Prometheus reads of the daemon.
//!
//! A plugin that counts or times something depends on [`Metrics`] and registers its collectors when it starts; whoever
//! serves them depends on the same. There is no registry beside it.

use kevel_model::{Error, Result};
use kevel_plugin::Kind;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector,
};

/// The registry: `io.containerd.metrics.v1.grpc-prometheus`.
pub enum Metrics {}

impl Kind for Metrics {
    const TYPE: &'static str = "io.containerd.metrics.v1";
    type Handle = MetricRegistry;
}

/// Seconds of things that take from a tenth of a millisecond to half a minute.
const SECONDS: [f64; 10] = [0.0001, 0.0004, 0.0016, 0.0064, 0.0256, 0.1024, 0.4096, 1.6384, 6.5536, 26.2144];

/// Collectors of this daemon. Cheap to clone; a new one is empty.
#[derive(Clone, Debug, Default)]
pub struct MetricRegistry {
    registry: Registry,
    /// Whether the time of every gRPC method is kept as a histogram, which is many series.
    grpc_histogram: bool,
}

impl MetricRegistry {
    /// An empty registry; `grpc_histogram` asks for a histogram of every gRPC method's time.
    pub fn new(grpc_histogram: bool) -> Self {
        Self { grpc_histogram, ..Self::default() }
    }

    /// Whether histograms of gRPC methods are wanted.
    pub fn wants_grpc_histogram(&self) -> bool {
        self.grpc_histogram
    }

    /// What Prometheus gets.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }

    /// Adds a collector.
    ///
    /// # Errors
    /// Already exists when one of its names is taken.
    pub fn register(&self, collector: impl Collector + 'static) -> Result<()> {
        self.registry.register(Box::new(collector)).map_err(|error| match error {
            prometheus::Error::AlreadyReg => Error::already_exists("registering a metric").with_source(error),
            other => Error::invalid_argument("registering a metric").with_source(other),
        })
    }

    fn added<T: Collector + Clone + 'static>(&self, name: &str, made: prometheus::Result<T>) -> Result<T> {
        let made = made.map_err(|error| Error::invalid_argument(format!("metric {name}")).with_source(error))?;
        self.register(made.clone()).map_err(|error| error.context(format!("metric {name}")))?;
        Ok(made)
    }

    /// A new counter.
    ///
    /// # Errors
    /// When the name is no name or is taken.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.added(name, IntCounter::new(name, help))
    }

    /// New counters by labels.
    ///
    /// # Errors
    /// When a name is no name or is taken.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.added(name, IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// New gauges by labels.
    ///
    /// # Errors
    /// When a name is no name or is taken.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.added(name, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// New histograms of seconds by labels, for things that take from a tenth of a millisecond to half a minute.
    ///
    /// # Errors
    /// When a name is no name or is taken.
    pub fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
        self.histograms(name, help, labels, &SECONDS)
    }

    /// New histograms by labels.
    ///
    /// # Errors
    /// When a name is no name or is taken, or the buckets do not rise.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.added(name, HistogramVec::new(options, labels))
    }
}

#[cfg(test)]
mod tests {
    use kevel_model::Code;

    use super::*;

    #[test]
    fn a_name_is_taken_once() {
        let registry = MetricRegistry::default();
        registry.counter("kevel_a_total", "a").unwrap().inc();
        let taken = registry.counter("kevel_a_total", "a").unwrap_err();
        assert_eq!(taken.code(), Code::AlreadyExists, "{}", taken.chain());
        assert_eq!(registry.counters("no name", "b", &["c"]).unwrap_err().code(), Code::InvalidArgument);
        registry.seconds("kevel_b_seconds", "b", &["c"]).unwrap().with_label_values(&["d"]).observe(0.2);
        let names: Vec<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(names, ["kevel_a_total", "kevel_b_seconds"]);
    }
}
