//! What the CRI counts and times for Prometheus, under containerd's names where containerd has them. Metrics of pods and
//! containers themselves are CRI's own RPCs, see `metric`.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use kevel_contract::{metric::MetricRegistry, trace};
use kevel_model::Result;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

/// Everything that is counted where it happens. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Counters {
    pub(crate) sandbox_list: Histogram,
    pub(crate) stream_sandbox_list: Histogram,
    pub(crate) container_list: Histogram,
    pub(crate) stream_container_list: Histogram,
    sandbox_create_network: Histogram,
    sandbox_delete_network: Histogram,
    pub(crate) sandbox_runtime_create: HistogramVec,
    pub(crate) sandbox_runtime_stop: HistogramVec,
    pub(crate) sandbox_remove: HistogramVec,
    pub(crate) container_create: HistogramVec,
    pub(crate) container_start: HistogramVec,
    pub(crate) container_stop: HistogramVec,
    pub(crate) container_remove: HistogramVec,
    pub(crate) container_checkpoint: HistogramVec,
    network_operations: IntCounterVec,
    network_errors: IntCounterVec,
    network_seconds: HistogramVec,
    /// Containers that ended because the kernel killed a process of theirs.
    pub(crate) oom: IntCounter,
    pub(crate) operations: OperationCounters,
}

/// What operations are measured by.
#[derive(Clone)]
pub(crate) struct OperationCounters {
    pub(crate) seconds: HistogramVec,
    pub(crate) stages: HistogramVec,
    pub(crate) failures: IntCounterVec,
}

/// What pulls are counted by.
#[derive(Clone)]
pub(crate) struct PullCounters {
    pulls: IntCounterVec,
    running: IntGauge,
    succeeded: IntCounter,
    failed: IntCounterVec,
    /// Under the name that containerd deprecated, with its buckets; then under the one that followed.
    throughput: [Histogram; 2],
}

/// A call to the network plugins, as containerd calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkCall {
    SetUp,
    TearDown,
}

const KIND: &[&str] = &["operation_type"];

impl Counters {
    /// Registers everything.
    ///
    /// # Errors
    /// When a name is taken.
    pub(crate) fn new(registry: &MetricRegistry) -> Result<Self> {
        let name = |name: &str| format!("containerd_cri_{name}_seconds");
        let plain = |of: &str, help: &str| -> Result<Histogram> {
            Ok(registry.seconds(&name(of), help, &[])?.with_label_values::<&str>(&[]))
        };
        let timer = |of: &str, help: &str| registry.seconds(&name(of), help, &["runtime"]);
        let network = |name: &str| format!("containerd_cri_network_plugin_operations_{name}");
        let oom = "containers that ended because the kernel killed a process of theirs for want of memory";
        Ok(Self {
            sandbox_list: plain("sandbox_list", "time to list sandboxes")?,
            stream_sandbox_list: plain("stream_sandbox_list", "time to list sandboxes as a stream")?,
            container_list: plain("container_list", "time to list containers")?,
            stream_container_list: plain("stream_container_list", "time to list containers as a stream")?,
            sandbox_create_network: plain("sandbox_create_network", "time to attach a sandbox to its networks")?,
            sandbox_delete_network: plain("sandbox_delete_network", "time to detach a sandbox from its networks")?,
            sandbox_runtime_create: timer("sandbox_runtime_create", "time to make and start a sandbox")?,
            sandbox_runtime_stop: timer("sandbox_runtime_stop", "time to end a sandbox")?,
            sandbox_remove: timer("sandbox_remove", "time to remove a sandbox")?,
            container_create: timer("container_create", "time to make a container")?,
            container_start: timer("container_start", "time to start a container")?,
            container_stop: timer("container_stop", "time to end a container")?,
            container_remove: timer("container_remove", "time to remove a container")?,
            container_checkpoint: timer("container_checkpoint", "time to write a checkpoint of a container")?,
            // The unit stands twice in containerd's names, too.
            network_operations: registry.counters(&network("total_total"), "calls of network plugins", KIND)?,
            network_errors: registry.counters(
                &network("errors_total_total"),
                "failed calls of network plugins",
                KIND,
            )?,
            network_seconds: registry.seconds(&network("duration_seconds_seconds"), "time of their calls", KIND)?,
            oom: registry.counter("container_runtime_crio_containers_oom_total", oom)?,
            operations: OperationCounters::new(registry)?,
        })
    }

    /// Makes a call to the network plugins.
    pub(crate) async fn network<T, E: std::error::Error>(
        &self,
        what: NetworkCall,
        call: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let (label, timer) = match what {
            NetworkCall::SetUp => ("set_up_pod", &self.sandbox_create_network),
            NetworkCall::TearDown => ("tear_down_pod", &self.sandbox_delete_network),
        };
        let began = Instant::now();
        let call = trace::within(format_args!("cni {label}"), call);
        let result = call.await;
        let took = began.elapsed().as_secs_f64();
        self.network_operations.with_label_values(&[label]).inc();
        self.network_seconds.with_label_values(&[label]).observe(took);
        match &result {
            Ok(_) => timer.observe(took),
            Err(_) => self.network_errors.with_label_values(&[label]).inc(),
        }
        result
    }
}

/// From a slow registry to more than a disk writes.
const MIBPS: [f64; 11] = [0.1, 1.0, 10.0, 25.0, 75.0, 150.0, 300.0, 500.0, 1000.0, 2000.0, 4000.0];

impl OperationCounters {
    fn new(registry: &MetricRegistry) -> Result<Self> {
        let name = |name: &str| format!("kevel_cri_{name}");
        let code = ["operation", "code"];
        Ok(Self {
            seconds: registry.seconds(&name("operation_seconds"), "time of operations", &["operation"])?,
            stages: registry.seconds(&name("stage_seconds"), "time of their stages", &["operation", "stage"])?,
            failures: registry.counters(&name("operation_failures_total"), "failed operations", &code)?,
        })
    }
}

impl PullCounters {
    /// Registers everything.
    ///
    /// # Errors
    /// When a name is taken.
    pub(crate) fn new(registry: &MetricRegistry) -> Result<Self> {
        let name = |name: &str| format!("containerd_cri_sandboxed_{name}");
        let crio = |name: &str| format!("container_runtime_crio_image_pulls_{name}");
        let running = registry.gauges(&name("in_progress_image_pulls_total"), "pulls that run", &[])?;
        Ok(Self {
            pulls: registry.counters(&name("image_pulls_total"), "pulls by how they ended", &["status"])?,
            running: running.with_label_values::<&str>(&[]),
            succeeded: registry.counter(&crio("success_total"), "pulls that succeeded")?,
            throughput: [
                speeds(registry, &name("image_pulling_throughput"), prometheus::DEFAULT_BUCKETS)?,
                speeds(registry, &name("image_pulling_throughput_mibps"), &MIBPS)?,
            ],
            failed: registry.counters(&crio("failure_total"), "pulls that failed, by error code", &["error"])?,
        })
    }

    /// Counts how fast a pull was that succeeded: bytes that came, and the time of all of it.
    pub(crate) fn throughput(&self) -> impl FnOnce(u64, Duration) + Send + use<> {
        let speeds = self.throughput.clone();
        move |bytes, took| {
            // Nothing came: neither slow nor fast.
            if bytes > 0 && !took.is_zero() {
                let mib = bytes as f64 / f64::from(1 << 20) / took.as_secs_f64();
                speeds.iter().for_each(|speed| speed.observe(mib));
            }
        }
    }

    /// Pulls.
    pub(crate) async fn pull<T>(&self, pull: impl Future<Output = Result<T>>) -> Result<T> {
        struct Running<'a>(&'a IntGauge);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        let running = Running(&self.running);
        running.0.inc();
        let result = pull.await;
        match &result {
            Ok(_) => {
                self.pulls.with_label_values(&["success"]).inc();
                self.succeeded.inc();
            }
            Err(error) => {
                self.pulls.with_label_values(&["failure"]).inc();
                self.failed.with_label_values(&[&format!("{:?}", error.code())]).inc();
            }
        }
        result
    }
}

fn speeds(registry: &MetricRegistry, name: &str, buckets: &[f64]) -> Result<Histogram> {
    let help = "bytes fetched of an image in MiB, by the seconds of its pull";
    Ok(registry.histograms(name, help, &[], buckets)?.with_label_values::<&str>(&[]))
}

/// Times work that succeeds; what fails has its own counters.
pub(crate) async fn timed<T, E>(
    timer: &Histogram,
    work: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    let began = Instant::now();
    let result = work.await;
    if result.is_ok() {
        timer.observe(began.elapsed().as_secs_f64());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn network_calls_and_pulls_are_counted_by_outcome() {
        let registry = MetricRegistry::default();
        let (counters, pulls) = (Counters::new(&registry).unwrap(), PullCounters::new(&registry).unwrap());
        counters.network(NetworkCall::SetUp, async { Ok::<_, std::fmt::Error>(()) }).await.unwrap();
        counters.network(NetworkCall::TearDown, async { Err::<(), _>(std::fmt::Error) }).await.unwrap_err();
        assert_eq!(counters.network_operations.with_label_values(&["set_up_pod"]).get(), 1);
        assert_eq!(counters.network_errors.with_label_values(&["set_up_pod"]).get(), 0);
        assert_eq!(counters.network_errors.with_label_values(&["tear_down_pod"]).get(), 1);
        let (made, undone) = (&counters.sandbox_create_network, &counters.sandbox_delete_network);
        assert_eq!((made.get_sample_count(), undone.get_sample_count()), (1, 0));
        pulls.pull(async { Ok(()) }).await.unwrap();
        pulls.pull::<()>(async { Err(kevel_model::Error::not_found("x")) }).await.unwrap_err();
        assert_eq!((pulls.succeeded.get(), pulls.failed.with_label_values(&["NotFound"]).get()), (1, 1));
        assert_eq!(pulls.running.get(), 0);
        pulls.throughput()(0, Duration::from_secs(1));
        pulls.throughput()(6 << 20, Duration::from_secs(2));
        for speed in &pulls.throughput {
            assert_eq!((speed.get_sample_count(), speed.get_sample_sum()), (1, 3.0), "nothing fetched is no speed");
        }
        assert!(Counters::new(&registry).is_err(), "names are taken once");
    }
}
