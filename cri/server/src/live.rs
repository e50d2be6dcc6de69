//! What Prometheus reads of the CRI's state when it asks: how many there are of what, what runs and for how long, what
//! logs took and events left out.

use std::sync::{Arc, Weak};

use kevel_contract::metric::MetricRegistry;
use kevel_cri_logs::Stats;
use kevel_model::Result;
use kevel_proto::runtime::v1::ContainerState;
use prometheus::{
    GaugeVec, IntCounter, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::server::Server;

/// Reads a server's state.
struct Live {
    server: Weak<Server>,
    pods: IntGaugeVec,
    containers: IntGaugeVec,
    running: IntGaugeVec,
    stages: IntGaugeVec,
    oldest: GaugeVec,
    default_runtime: IntGaugeVec,
    /// Counters whose value is kept elsewhere, in the order of [`TOTALS`].
    totals: Vec<IntCounter>,
}

const TOTALS: [(&str, &str); 7] = [
    ("containerd_cri_input_entries_total", "lines of containers' output"),
    ("containerd_cri_output_entries_total", "lines for containers' logs"),
    ("containerd_cri_input_bytes_total", "bytes for containers' logs"),
    ("containerd_cri_output_bytes_total", "bytes of containers' logs that were written"),
    ("containerd_cri_split_entries_total", "log lines that are parts of longer ones"),
    ("containerd_cri_container_events_dropped_total", "events left out for slow readers"),
    ("container_runtime_crio_containers_events_dropped_total", "events left out for slow readers"),
];

impl Server {
    /// Adds what is read of the server to a registry.
    ///
    /// # Errors
    /// When a name is taken.
    pub(crate) fn expose(self: &Arc<Self>, registry: &MetricRegistry) -> Result<()> {
        let wrong = |error| kevel_model::Error::internal("making metrics").with_source(error);
        let live = Live::new(Arc::downgrade(self)).map_err(wrong)?;
        registry.register(live)
    }
}

impl Live {
    fn new(server: Weak<Server>) -> prometheus::Result<Self> {
        let gauges = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let at = ["operation", "stage"];
        let oldest = Opts::new("kevel_cri_operation_oldest_seconds", "age of the operation in flight that began first");
        Ok(Self {
            server,
            pods: gauges("kevel_cri_pods", "pod sandboxes by state", &["state"])?,
            containers: gauges("kevel_cri_containers", "containers by state", &["state"])?,
            running: gauges("kevel_cri_operations_running", "operations in flight", &["operation"])?,
            stages: gauges("kevel_cri_operations_at_stage", "operations in flight by where they are", &at)?,
            oldest: GaugeVec::new(oldest, &["operation"])?,
            default_runtime: gauges("container_runtime_crio_default_runtime", "the default handler", &["runtime"])?,
            totals: TOTALS
                .iter()
                .map(|(name, help)| IntCounter::new(*name, *help))
                .collect::<prometheus::Result<Vec<_>>>()?,
        })
    }

    fn read(&self, server: &Server) {
        let now = server.index.snapshot();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let ready = now.pods.values().filter(|pod| pod.ready).count();
        self.pods.with_label_values(&["ready"]).set(count(ready));
        self.pods.with_label_values(&["notready"]).set(count(now.pods.size() - ready));
        for (state, name) in [
            (ContainerState::ContainerCreated, "created"),
            (ContainerState::ContainerRunning, "running"),
            (ContainerState::ContainerExited, "exited"),
            (ContainerState::ContainerUnknown, "unknown"),
        ] {
            let those = now.containers.values().filter(|one| one.state.cri() == state).count();
            self.containers.with_label_values(&[name]).set(count(those));
        }
        self.default_runtime.reset();
        let handlers = server.settings.handlers();
        self.default_runtime.with_label_values(&[handlers.config.default_runtime_name.as_str()]).set(1);
        self.read_operations(server);
        let logs = server.log_stats();
        let left_out = server.index.hub.left_out();
        let values = [
            logs.lines.saturating_sub(logs.splits),
            logs.lines,
            logs.bytes + logs.dropped_bytes,
            logs.bytes,
            logs.splits,
            left_out,
            left_out,
        ];
        for (total, value) in self.totals.iter().zip(values) {
            total.reset();
            total.inc_by(value);
        }
    }

    fn read_operations(&self, server: &Server) {
        for gauge in [&self.running, &self.stages] {
            gauge.reset();
        }
        self.oldest.reset();
        for one in server.operations.list().into_iter().chain(server.images.running_pulls()) {
            self.running.with_label_values(&[one.kind]).inc();
            let oldest = self.oldest.with_label_values(&[one.kind]);
            oldest.set(oldest.get().max(one.took.as_secs_f64()));
            self.stages.with_label_values(&[one.kind, one.stage.0]).inc();
        }
    }

    fn all(&self) -> impl Iterator<Item = &dyn Collector> {
        let gauges: [&dyn Collector; 6] =
            [&self.pods, &self.containers, &self.running, &self.stages, &self.oldest, &self.default_runtime];
        gauges.into_iter().chain(self.totals.iter().map(|total| total as &dyn Collector))
    }
}

impl Collector for Live {
    fn desc(&self) -> Vec<&Desc> {
        self.all().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(server) = self.server.upgrade() else { return Vec::new() };
        self.read(&server);
        // A family without a member has no place in the text.
        self.all().flat_map(Collector::collect).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

/// Adds what another log took.
pub(crate) fn add(sum: &mut Stats, one: Stats) {
    sum.lines += one.lines;
    sum.bytes += one.bytes;
    sum.splits += one.splits;
    sum.dropped_bytes += one.dropped_bytes;
    sum.failures += one.failures;
}
