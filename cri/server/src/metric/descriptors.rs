//! ListMetricDescriptors: every name with its labels, the union of what containerd and CRI-O tell.

use kevel_proto::runtime::v1::MetricDescriptor;

use crate::server::Server;

/// The labels that every metric begins with.
pub(super) const BASE: [&str; 5] = ["pod", "namespace", "container", "id", "image"];

/// A metric: its name, what it is, and the labels after [`BASE`].
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
}

const fn known(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Known {
    Known { name, help, labels }
}

const NONE: &[&str] = &[];
const DEVICE: &[&str] = &["device"];
const INTERFACE: &[&str] = &["interface"];

/// Every metric, by name.
pub(super) const ALL: &[Known] = &[
    known(
        "container_blkio_device_usage_total",
        &["device", "major", "minor", "operation"],
        "bytes to and from a device",
    ),
    known("container_cpu_cfs_periods_total", NONE, "periods of the CPU quota that passed"),
    known("container_cpu_cfs_throttled_periods_total", NONE, "periods in which the CPU quota was used up"),
    known("container_cpu_cfs_throttled_seconds_total", NONE, "seconds for which a used up CPU quota stopped tasks"),
    known("container_cpu_system_seconds_total", NONE, "seconds of CPU time in the kernel"),
    known("container_cpu_usage_seconds_total", &["cpu"], "seconds of CPU time"),
    known("container_cpu_user_seconds_total", NONE, "seconds of CPU time in user mode"),
    known("container_file_descriptors", NONE, "open file descriptors"),
    known("container_fs_inodes_free", DEVICE, "free inodes of the file system with the writable layer"),
    known("container_fs_inodes_total", DEVICE, "inodes of the file system with the writable layer"),
    known("container_fs_limit_bytes", DEVICE, "size of the file system with the writable layer in bytes"),
    known("container_fs_reads_bytes_total", DEVICE, "bytes read from a device"),
    known("container_fs_reads_total", DEVICE, "reads from a device"),
    known("container_fs_usage_bytes", DEVICE, "size of the writable layer in bytes"),
    known("container_fs_writes_bytes_total", DEVICE, "bytes written to a device"),
    known("container_fs_writes_total", DEVICE, "writes to a device"),
    known("container_hugetlb_max_usage_bytes", &["pagesize"], "the most bytes of huge pages that were used"),
    known("container_hugetlb_usage_bytes", &["pagesize"], "bytes of huge pages in use"),
    known("container_last_seen", NONE, "when this was read, in seconds since the epoch"),
    known("container_memory_cache", NONE, "bytes of file caches"),
    known("container_memory_failcnt", NONE, "how often the memory limit was hit"),
    known("container_memory_failures_total", &["failure_type", "scope"], "page faults"),
    known("container_memory_kernel_usage", NONE, "bytes of kernel memory"),
    known("container_memory_mapped_file", NONE, "bytes of mapped files"),
    known("container_memory_max_usage_bytes", NONE, "the most bytes of memory that were used"),
    known("container_memory_rss", NONE, "bytes of anonymous memory"),
    known("container_memory_swap", NONE, "bytes in swap"),
    known("container_memory_total_active_file_bytes", NONE, "bytes of file caches that were used lately"),
    known("container_memory_total_inactive_file_bytes", NONE, "bytes of file caches that were not used lately"),
    known("container_memory_usage_bytes", NONE, "bytes of memory in use, caches included"),
    known("container_memory_working_set_bytes", NONE, "bytes of memory in use that cannot be taken back at once"),
    known("container_network_receive_bytes_total", INTERFACE, "bytes received"),
    known("container_network_receive_errors_total", INTERFACE, "errors while receiving"),
    known("container_network_receive_packets_dropped_total", INTERFACE, "packets dropped while receiving"),
    known("container_network_receive_packets_total", INTERFACE, "packets received"),
    known("container_network_transmit_bytes_total", INTERFACE, "bytes sent"),
    known("container_network_transmit_errors_total", INTERFACE, "errors while sending"),
    known("container_network_transmit_packets_dropped_total", INTERFACE, "packets dropped while sending"),
    known("container_network_transmit_packets_total", INTERFACE, "packets sent"),
    known("container_oom_events_total", NONE, "processes that the kernel killed for want of memory"),
    known("container_pressure_cpu_stalled_seconds_total", NONE, "seconds for which all tasks waited for a CPU"),
    known("container_pressure_cpu_waiting_seconds_total", NONE, "seconds for which a task waited for a CPU"),
    known("container_pressure_io_stalled_seconds_total", NONE, "seconds for which all tasks waited for a disk"),
    known("container_pressure_io_waiting_seconds_total", NONE, "seconds for which a task waited for a disk"),
    known("container_pressure_memory_stalled_seconds_total", NONE, "seconds for which all tasks waited for memory"),
    known("container_pressure_memory_waiting_seconds_total", NONE, "seconds for which a task waited for memory"),
    known("container_processes", NONE, "processes"),
    known("container_sockets", NONE, "open sockets"),
    known("container_spec_cpu_period", NONE, "microseconds of a period of the CPU quota"),
    known("container_spec_cpu_quota", NONE, "microseconds of CPU time in a period"),
    known("container_spec_cpu_shares", NONE, "share of CPU time in a contest"),
    known("container_spec_memory_limit_bytes", NONE, "memory limit in bytes; 0 for none"),
    known("container_spec_memory_reservation_limit_bytes", NONE, "memory that is left alone, in bytes; 0 for none"),
    known("container_spec_memory_swap_limit_bytes", NONE, "swap limit in bytes, with memory in cgroups 1; 0 for none"),
    known("container_start_time_seconds", NONE, "when the container was started, in seconds since the epoch"),
    known("container_threads", NONE, "threads"),
    known("container_threads_max", NONE, "how many threads there may be; 0 for any number"),
    known("container_ulimits_soft", &["ulimit"], "soft limits of the first process; all bits set for no limit"),
];

/// The metric of that name.
pub(super) fn find(name: &str) -> Option<&'static Known> {
    ALL.binary_search_by(|one| one.name.cmp(name)).ok().and_then(|index| ALL.get(index))
}

impl Server {
    /// Every metric that ListPodSandboxMetrics may answer.
    pub(crate) fn metric_descriptors(&self) -> Vec<MetricDescriptor> {
        let describe = |one: &Known| MetricDescriptor {
            name: one.name.to_owned(),
            help: one.help.to_owned(),
            label_keys: BASE.iter().chain(one.labels).map(|&label| label.to_owned()).collect(),
        };
        ALL.iter().map(describe).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_found() {
        assert!(ALL.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(ALL.len(), 58); // critest's 56, and containerd's two of file caches
        assert!(ALL.iter().all(|one| find(one.name).is_some() && !one.help.is_empty()));
        assert!(find("container_nothing").is_none());
    }
}
