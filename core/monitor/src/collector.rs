//! The numbers of every task for Prometheus, under the names and units that containerd has for them in each version of
//! cgroups. All are gauges there, and so they are here.

use std::sync::{Mutex, PoisonError};

use kevel_cgroup::{Cpu, Hugetlb, Io, Memory, OomCounter, Pids, Place};
use kevel_model::{Error, Result};
use prometheus::{GaugeVec, Opts, core::Desc, proto::MetricFamily};

use crate::Monitor;

/// The labels of every metric.
const LABELS: [&str; 2] = ["container_id", "namespace"];
const DEVICE_1: &[&str] = &["op", "device", "major", "minor"];
const DEVICE_2: &[&str] = &["major", "minor"];
const PAGE: &[&str] = &["page"];

/// What is read of a task.
struct Sample {
    cpu: Cpu,
    memory: Memory,
    pids: Pids,
    io: Vec<(Io, String)>,
    hugetlb: Vec<Hugetlb>,
    oom: Option<u64>,
}

impl Sample {
    fn of(place: &Place) -> Self {
        Self {
            cpu: Cpu::of(place),
            memory: Memory::of(place),
            pids: Pids::of(place),
            io: Io::of(place).into_iter().map(|io| (io, io.device_name())).collect(),
            hugetlb: Hugetlb::of(place),
            oom: OomCounter::of(place).and_then(|counter| counter.kills()),
        }
    }
}

/// Values with the labels after [`LABELS`].
type Values = Vec<(Vec<String>, u64)>;

/// A metric: its name after `container_`, its labels after [`LABELS`], what it is, and how it is taken.
type Metric = (&'static str, &'static [&'static str], &'static str, fn(&Sample) -> Values);

fn one(value: Option<u64>) -> Values {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

fn micros(nanos: Option<u64>) -> Values {
    one(nanos.map(|nanos| nanos / 1000))
}

/// By operation and device.
fn operations(sample: &Sample, read: fn(&Io) -> u64, write: fn(&Io) -> u64) -> Values {
    let of = |(io, name): &(Io, String)| {
        let labels = |operation: &str| {
            vec![operation.to_owned(), name.clone(), io.device.0.to_string(), io.device.1.to_string()]
        };
        [(labels("Read"), read(io)), (labels("Write"), write(io))]
    };
    sample.io.iter().flat_map(of).collect()
}

/// By device.
fn devices(sample: &Sample, value: fn(&Io) -> u64) -> Values {
    let of = |(io, _): &(Io, String)| (vec![io.device.0.to_string(), io.device.1.to_string()], value(io));
    sample.io.iter().map(of).collect()
}

/// By size of page.
fn pages(sample: &Sample, value: fn(&Hugetlb) -> Option<u64>) -> Values {
    sample.hugetlb.iter().filter_map(|pages| Some((vec![pages.page.clone()], value(pages)?))).collect()
}

const V1: &[Metric] = &[
    ("cpu_total_nanoseconds", &[], "CPU time", |s| one(s.cpu.usage)),
    ("cpu_kernel_nanoseconds", &[], "CPU time in the kernel", |s| one(s.cpu.system)),
    ("cpu_user_nanoseconds", &[], "CPU time in user mode", |s| one(s.cpu.user)),
    ("cpu_throttle_periods_total", &[], "periods of the CPU quota", |s| one(s.cpu.periods)),
    ("cpu_throttled_periods_total", &[], "periods with the quota used up", |s| one(s.cpu.throttled_periods)),
    ("cpu_throttled_time_nanoseconds", &[], "time for which the quota stopped tasks", |s| one(s.cpu.throttled)),
    ("memory_usage_usage_bytes", &[], "memory in use", |s| one(s.memory.usage)),
    ("memory_usage_max_bytes", &[], "the most memory that was in use", |s| one(s.memory.peak)),
    ("memory_usage_limit_bytes", &[], "memory limit", |s| one(s.memory.limit)),
    ("memory_usage_failcnt_total", &[], "how often the limit was hit", |s| one(s.memory.failures)),
    ("memory_kernel_usage_bytes", &[], "kernel memory in use", |s| one(s.memory.kernel)),
    ("memory_total_cache_bytes", &[], "file caches", |s| one(s.memory.cache)),
    ("memory_total_rss_bytes", &[], "anonymous memory", |s| one(s.memory.rss)),
    ("memory_total_mapped_file_bytes", &[], "mapped files", |s| one(s.memory.mapped_file)),
    ("memory_total_active_file_bytes", &[], "file caches used lately", |s| one(s.memory.active_file)),
    ("memory_total_inactive_file_bytes", &[], "file caches not used lately", |s| one(s.memory.inactive_file)),
    ("memory_total_dirty_bytes", &[], "dirty file caches", |s| one(s.memory.dirty)),
    ("memory_total_writeback_bytes", &[], "file caches being written", |s| one(s.memory.writeback)),
    ("memory_total_pgfault_bytes", &[], "page faults", |s| one(s.memory.faults)),
    ("memory_total_pgmajfault_bytes", &[], "page faults that read a disk", |s| one(s.memory.major_faults)),
    ("memory_oom_total", &[], "processes killed for want of memory", |s| one(s.oom)),
    ("pids_current", &[], "threads", |s| one(s.pids.current)),
    ("pids_limit", &[], "how many threads there may be", |s| one(s.pids.limit)),
    ("blkio_io_service_bytes_recursive_bytes", DEVICE_1, "bytes to and from devices", |s| {
        operations(s, |io| io.read_bytes, |io| io.write_bytes)
    }),
    ("blkio_io_serviced_recursive_total", DEVICE_1, "operations on devices", |s| {
        operations(s, |io| io.reads, |io| io.writes)
    }),
    ("hugetlb_usage_bytes", PAGE, "huge pages in use", |s| pages(s, |pages| pages.usage)),
    ("hugetlb_max_bytes", PAGE, "the most huge pages that were in use", |s| pages(s, |pages| pages.peak)),
    ("hugetlb_failcnt_total", PAGE, "how often their limit was hit", |s| pages(s, |pages| pages.failures)),
];

const V2: &[Metric] = &[
    ("cpu_usage_usec_microseconds", &[], "CPU time", |s| micros(s.cpu.usage)),
    ("cpu_user_usec_microseconds", &[], "CPU time in user mode", |s| micros(s.cpu.user)),
    ("cpu_system_usec_microseconds", &[], "CPU time in the kernel", |s| micros(s.cpu.system)),
    ("cpu_nr_periods_total", &[], "periods of the CPU quota", |s| one(s.cpu.periods)),
    ("cpu_nr_throttled_total", &[], "periods with the quota used up", |s| one(s.cpu.throttled_periods)),
    ("cpu_throttled_usec_microseconds", &[], "time for which the quota stopped tasks", |s| micros(s.cpu.throttled)),
    ("memory_usage_bytes", &[], "memory in use", |s| one(s.memory.usage)),
    ("memory_usage_limit_bytes", &[], "memory limit", |s| one(s.memory.limit)),
    ("memory_swap_usage_bytes", &[], "swap in use", |s| one(s.memory.swap)),
    ("memory_swap_limit_bytes", &[], "swap limit", |s| one(s.memory.swap_limit)),
    ("memory_file_bytes", &[], "file caches", |s| one(s.memory.cache)),
    ("memory_file_mapped_bytes", &[], "mapped files", |s| one(s.memory.mapped_file)),
    ("memory_file_dirty_bytes", &[], "dirty file caches", |s| one(s.memory.dirty)),
    ("memory_file_writeback_bytes", &[], "file caches being written", |s| one(s.memory.writeback)),
    ("memory_active_file_bytes", &[], "file caches used lately", |s| one(s.memory.active_file)),
    ("memory_inactive_file_bytes", &[], "file caches not used lately", |s| one(s.memory.inactive_file)),
    ("memory_anon_bytes", &[], "anonymous memory", |s| one(s.memory.rss)),
    ("memory_pgfault_bytes", &[], "page faults", |s| one(s.memory.faults)),
    ("memory_pgmajfault_bytes", &[], "page faults that read a disk", |s| one(s.memory.major_faults)),
    ("memory_oom_total", &[], "processes killed for want of memory", |s| one(s.oom)),
    ("pids_current", &[], "threads", |s| one(s.pids.current)),
    ("pids_limit", &[], "how many threads there may be", |s| one(s.pids.limit)),
    ("io_rbytes_bytes", DEVICE_2, "bytes read from devices", |s| devices(s, |io| io.read_bytes)),
    ("io_wbytes_bytes", DEVICE_2, "bytes written to devices", |s| devices(s, |io| io.write_bytes)),
    ("io_rios_total", DEVICE_2, "reads from devices", |s| devices(s, |io| io.reads)),
    ("io_wios_total", DEVICE_2, "writes to devices", |s| devices(s, |io| io.writes)),
    ("hugetlb_usage_bytes", PAGE, "huge pages in use", |s| pages(s, |pages| pages.usage)),
];

/// Reads every task when it is asked.
pub(crate) struct Collector {
    monitor: Monitor,
    v1: Vec<(GaugeVec, Metric)>,
    v2: Vec<(GaugeVec, Metric)>,
    /// Held while the gauges are filled and taken.
    collecting: Mutex<()>,
}

impl Collector {
    pub(crate) fn new(monitor: Monitor) -> Result<Self> {
        let make = |metrics: &[Metric]| -> prometheus::Result<Vec<(GaugeVec, Metric)>> {
            let one = |metric: &Metric| {
                let labels: Vec<&str> = LABELS.iter().chain(metric.1).copied().collect();
                let gauge = GaugeVec::new(Opts::new(format!("container_{}", metric.0), metric.2), &labels)?;
                Ok((gauge, *metric))
            };
            metrics.iter().map(one).collect()
        };
        let wrong = |error| Error::internal("making the metrics of tasks").with_source(error);
        let (v1, v2) = (make(V1).map_err(wrong)?, make(V2).map_err(wrong)?);
        Ok(Self { monitor, v1, v2, collecting: Mutex::default() })
    }

    fn fill(&self) {
        let all = self.v1.iter().chain(&self.v2);
        all.for_each(|(gauge, _)| gauge.reset());
        for ((namespace, id), place) in self.monitor.places() {
            let sample = Sample::of(&place);
            for (gauge, metric) in if place.unified.is_some() { &self.v2 } else { &self.v1 } {
                for (labels, value) in (metric.3)(&sample) {
                    let own = [id.as_str(), namespace.as_str()];
                    let labels: Vec<&str> = own.into_iter().chain(labels.iter().map(String::as_str)).collect();
                    #[expect(clippy::cast_precision_loss, reason = "gauges are floating point numbers")]
                    gauge.with_label_values(&labels).set(value as f64);
                }
            }
        }
    }
}

impl prometheus::core::Collector for Collector {
    /// Both versions share some names; each is described once.
    fn desc(&self) -> Vec<&Desc> {
        let mut all: Vec<&Desc> = self.v1.iter().chain(&self.v2).flat_map(|(gauge, _)| gauge.desc()).collect();
        all.sort_by(|a, b| a.fq_name.cmp(&b.fq_name));
        all.dedup_by(|a, b| a.fq_name == b.fq_name);
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one_at_a_time = self.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        self.fill();
        let all = self.v1.iter().chain(&self.v2).flat_map(|(gauge, _)| gauge.collect());
        all.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_valid_and_taken_once() {
        for metrics in [V1, V2] {
            let names: BTreeSet<_> = metrics.iter().map(|metric| metric.0).collect();
            assert_eq!(names.len(), metrics.len());
        }
    }

    #[test]
    fn values_have_the_labels_of_their_metric() {
        let io = Io { device: (8, 0), read_bytes: 1, write_bytes: 2, reads: 3, writes: 4 };
        let hugetlb = Hugetlb { page: "2MB".into(), usage: Some(1), peak: Some(2), failures: Some(3) };
        let sample = Sample {
            cpu: Cpu { usage: Some(5000), ..Cpu::default() },
            memory: Memory::default(),
            pids: Pids::default(),
            io: vec![(io, "/dev/sda".into())],
            hugetlb: vec![hugetlb],
            oom: Some(1),
        };
        for (name, labels, _, take) in V1.iter().chain(V2) {
            assert!(take(&sample).iter().all(|(values, _)| values.len() == labels.len()), "{name}");
        }
        let take =
            |metrics: &[Metric], name: &str| (metrics.iter().find(|metric| metric.0 == name).unwrap().3)(&sample);
        assert_eq!(take(V2, "cpu_usage_usec_microseconds"), [(vec![], 5)]);
        assert_eq!(take(V1, "cpu_total_nanoseconds"), [(vec![], 5000)]);
        assert_eq!(take(V1, "blkio_io_serviced_recursive_total")[1].1, 4);
        assert!(take(V1, "memory_usage_usage_bytes").is_empty());
    }
}
