//! Everything about one place at one time, and how it is written down.

use std::fs;

use kevel_cgroup::{
    Cpu, Descriptors, Hugetlb, Io, Limits, Memory, OomCounter, Pids, Place, Pressure, Pressures, Processes,
};
use kevel_proto::runtime::v1::LinuxContainerResources;

use super::sheet::Sheet;

/// What the cgroup file system says of a container or pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    cpu: Cpu,
    memory: Memory,
    pids: Pids,
    pressures: Pressures,
    oom_kills: Option<u64>,
}

/// What is read of containers alone.
#[derive(Clone, Debug, Default)]
pub(super) struct More {
    io: Vec<(Io, String)>,
    hugetlb: Vec<Hugetlb>,
    limits: Limits,
    processes: u64,
    descriptors: Descriptors,
    open_files: Option<u64>,
    node_has_swap: bool,
}

const SECOND: u64 = 1_000_000_000;
const MICROSECONDS: u64 = 1_000_000;

impl Sample {
    /// Reads a place. Blocks.
    pub(super) fn of(place: &Place) -> Self {
        Self {
            cpu: Cpu::of(place),
            memory: Memory::of(place),
            pids: Pids::of(place),
            pressures: Pressures::of(place),
            oom_kills: OomCounter::of(place).and_then(|counter| counter.kills()),
        }
    }

    /// Writes down what containers and pods have in common.
    pub(super) fn write(&self, sheet: &mut Sheet, node_has_swap: bool) {
        let seconds = |nanos: Option<u64>| nanos.map(|nanos| nanos / SECOND);
        let cpu = &self.cpu;
        sheet.counter("container_cpu_usage_seconds_total", &["total"], seconds(cpu.usage));
        sheet.counter("container_cpu_user_seconds_total", &[], seconds(cpu.user));
        sheet.counter("container_cpu_system_seconds_total", &[], seconds(cpu.system));
        sheet.counter("container_cpu_cfs_periods_total", &[], cpu.periods);
        sheet.counter("container_cpu_cfs_throttled_periods_total", &[], cpu.throttled_periods);
        sheet.counter("container_cpu_cfs_throttled_seconds_total", &[], seconds(cpu.throttled));
        self.write_memory(sheet, node_has_swap);
        sheet.counter("container_oom_events_total", &[], self.oom_kills);
        for (pressure, waiting, stalled) in [
            (
                self.pressures.cpu,
                "container_pressure_cpu_waiting_seconds_total",
                "container_pressure_cpu_stalled_seconds_total",
            ),
            (
                self.pressures.memory,
                "container_pressure_memory_waiting_seconds_total",
                "container_pressure_memory_stalled_seconds_total",
            ),
            (
                self.pressures.io,
                "container_pressure_io_waiting_seconds_total",
                "container_pressure_io_stalled_seconds_total",
            ),
        ] {
            let seconds = |total: fn(Pressure) -> u64| pressure.map(|one| total(one) / MICROSECONDS);
            sheet.counter(waiting, &[], seconds(|one| one.some.total));
            sheet.counter(stalled, &[], seconds(|one| one.full.total));
        }
    }

    fn write_memory(&self, sheet: &mut Sheet, node_has_swap: bool) {
        let memory = &self.memory;
        sheet.gauge("container_memory_usage_bytes", &[], memory.usage);
        sheet.gauge("container_memory_working_set_bytes", &[], memory.working_set());
        // Before Linux 5.19, version 2 does not keep the most; what is used now is the most that is known.
        sheet.gauge("container_memory_max_usage_bytes", &[], memory.peak.or(memory.usage));
        sheet.gauge("container_memory_rss", &[], memory.rss);
        sheet.gauge("container_memory_cache", &[], memory.cache);
        sheet.gauge("container_memory_mapped_file", &[], memory.mapped_file);
        sheet.gauge("container_memory_kernel_usage", &[], memory.kernel);
        sheet.gauge("container_memory_total_active_file_bytes", &[], memory.active_file);
        sheet.gauge("container_memory_total_inactive_file_bytes", &[], memory.inactive_file);
        // A kernel that does not account for swap says nothing, but on a node without swap nothing is in it.
        let swap = memory.swap.or_else(|| (!node_has_swap).then_some(0));
        sheet.gauge("container_memory_swap", &[], swap);
        sheet.counter("container_memory_failcnt", &[], memory.failures);
        for scope in ["container", "hierarchy"] {
            sheet.counter("container_memory_failures_total", &["pgfault", scope], memory.faults);
            sheet.counter("container_memory_failures_total", &["pgmajfault", scope], memory.major_faults);
        }
    }
}

impl More {
    /// Reads a place. Blocks.
    pub(super) fn of(place: &Place) -> Self {
        let processes = Processes::of(place);
        Self {
            io: Io::of(place).into_iter().map(|io| (io, io.device_name())).collect(),
            hugetlb: Hugetlb::of(place),
            limits: Limits::of(place),
            processes: processes.0.len() as u64,
            descriptors: processes.descriptors(),
            open_files: processes.open_files_limit(),
            node_has_swap: node_has_swap(),
        }
    }

    /// Writes a container down. `asked` is what its limits should be, for what the kernel does not tell.
    pub(super) fn write(&self, sheet: &mut Sheet, sample: &Sample, asked: &LinuxContainerResources) {
        sample.write(sheet, self.node_has_swap);
        for (io, device) in &self.io {
            let device = device.as_str();
            sheet.counter("container_fs_reads_bytes_total", &[device], Some(io.read_bytes));
            sheet.counter("container_fs_writes_bytes_total", &[device], Some(io.write_bytes));
            sheet.counter("container_fs_reads_total", &[device], Some(io.reads));
            sheet.counter("container_fs_writes_total", &[device], Some(io.writes));
            let (major, minor) = (io.device.0.to_string(), io.device.1.to_string());
            for (operation, bytes) in [("Read", io.read_bytes), ("Write", io.write_bytes)] {
                let labels = [device, major.as_str(), minor.as_str(), operation];
                sheet.counter("container_blkio_device_usage_total", &labels, Some(bytes));
            }
        }
        for pages in &self.hugetlb {
            sheet.gauge("container_hugetlb_usage_bytes", &[&pages.page], pages.usage);
            sheet.gauge("container_hugetlb_max_usage_bytes", &[&pages.page], pages.peak);
        }
        sheet.gauge("container_processes", &[], Some(self.processes));
        sheet.gauge("container_threads", &[], sample.pids.current);
        sheet.gauge("container_threads_max", &[], Some(sample.pids.limit.unwrap_or(0)));
        sheet.gauge("container_file_descriptors", &[], Some(self.descriptors.files));
        sheet.gauge("container_sockets", &[], Some(self.descriptors.sockets));
        sheet.gauge("container_ulimits_soft", &["max_open_files"], self.open_files);
        self.write_limits(sheet, asked);
    }

    fn write_limits(&self, sheet: &mut Sheet, asked: &LinuxContainerResources) {
        let limits = &self.limits;
        let given = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        sheet.gauge("container_spec_cpu_period", &[], limits.cpu_period.or_else(|| given(asked.cpu_period)));
        sheet.gauge("container_spec_cpu_quota", &[], limits.cpu_quota);
        sheet.gauge("container_spec_cpu_shares", &[], limits.cpu_shares.or_else(|| given(asked.cpu_shares)));
        sheet.gauge("container_spec_memory_limit_bytes", &[], Some(limits.memory.unwrap_or(0)));
        let reservation = Some(limits.memory_reservation.unwrap_or(0));
        sheet.gauge("container_spec_memory_reservation_limit_bytes", &[], reservation);
        let swap = if limits.has_swap { limits.swap } else { given(asked.memory_swap_limit_in_bytes) };
        sheet.gauge("container_spec_memory_swap_limit_bytes", &[], Some(swap.unwrap_or(0)));
    }
}

/// Whether anything can be in swap on this node. Blocks.
pub(super) fn node_has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() > 1)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::metric::descriptors::{ALL, BASE, find};

    fn place(dir: &Path, unified: bool, files: &[(&str, &str)]) -> Place {
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        let names = ["cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb"];
        match unified {
            true => Place { unified: Some(dir.to_owned()), ..Place::default() },
            false => {
                let controllers = names.map(|name| (name.to_owned(), dir.to_owned())).into();
                Place { unified: None, controllers }
            }
        }
    }

    fn written(place: &Place) -> Vec<kevel_proto::runtime::v1::Metric> {
        let mut sheet = Sheet::new(7, ["p", "n", "c", "i", "img"].map(str::to_owned));
        More::of(place).write(&mut sheet, &Sample::of(place), &LinuxContainerResources::default());
        sheet.metrics
    }

    const V2: &[(&str, &str)] = &[
        (
            "cpu.stat",
            "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 4\nnr_throttled 1\nthrottled_usec 0\n",
        ),
        ("cpu.weight", "100\n"),
        ("cpu.max", "20000 100000\n"),
        ("memory.current", "100\n"),
        (
            "memory.stat",
            "anon 1\nfile 2\nkernel 3\nfile_mapped 4\nactive_file 5\ninactive_file 6\npgfault 7\npgmajfault 8\n",
        ),
        ("memory.events", "max 9\noom 0\noom_kill 2\n"),
        ("memory.max", "64\n"),
        ("pids.current", "3\n"),
        ("cgroup.procs", ""),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
        ("hugetlb.2MB.current", "0\n"),
        ("cpu.pressure", "some avg10=0 avg60=0 avg300=0 total=3000000\nfull avg10=0 avg60=0 avg300=0 total=2000000\n"),
        ("memory.pressure", "some avg10=0 avg60=0 avg300=0 total=0\n"),
        ("io.pressure", "some avg10=0 avg60=0 avg300=0 total=0\n"),
    ];

    #[test]
    fn version_2_has_a_value_for_every_name_that_comes_from_a_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = written(&place(dir.path(), true, V2));
        for metric in &metrics {
            let known = find(&metric.name).unwrap();
            assert_eq!(metric.label_values.len(), BASE.len() + known.labels.len(), "{}", metric.name);
        }
        let names: BTreeSet<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        let elsewhere = |name: &str| {
            ["container_network_", "container_fs_inodes", "container_fs_limit", "container_fs_usage"]
                .iter()
                .any(|start| name.starts_with(start))
                || ["container_last_seen", "container_start_time_seconds"].contains(&name)
                // Version 2 keeps no most of huge pages, and a cgroup without processes has no limits of them.
                || ["container_hugetlb_max_usage_bytes", "container_ulimits_soft"].contains(&name)
        };
        let missing: Vec<_> =
            ALL.iter().map(|one| one.name).filter(|name| !names.contains(name) && !elsewhere(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let value = |name: &str| metrics.iter().find(|one| one.name == name).and_then(|one| one.value).unwrap().value;
        assert_eq!(value("container_cpu_usage_seconds_total"), 5);
        assert_eq!(value("container_oom_events_total"), 2);
        assert_eq!(value("container_memory_max_usage_bytes"), 100);
        assert_eq!(value("container_pressure_cpu_stalled_seconds_total"), 2);
        assert_eq!(value("container_spec_cpu_quota"), 20_000);
        assert_eq!((value("container_threads"), value("container_threads_max")), (3, 0));
    }

    #[test]
    fn version_1_leaves_out_what_it_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("memory.usage_in_bytes", "100\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu.cfs_quota_us", "-1\n"),
            ("hugetlb.2MB.usage_in_bytes", "1\n"),
            ("hugetlb.2MB.max_usage_in_bytes", "2\n"),
        ];
        let metrics = written(&place(dir.path(), false, &files));
        let value = |name: &str| metrics.iter().find(|one| one.name == name).and_then(|one| one.value).map(|v| v.value);
        assert_eq!(value("container_memory_usage_bytes"), Some(100));
        assert_eq!(value("container_spec_memory_limit_bytes"), Some(0));
        assert_eq!(value("container_hugetlb_max_usage_bytes"), Some(2));
        for name in ["container_spec_cpu_quota", "container_memory_rss", "container_pressure_io_waiting_seconds_total"]
        {
            assert_eq!(value(name), None, "{name}");
        }
    }
}
