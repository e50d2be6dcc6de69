//! Version 1.

use std::path::{Path, PathBuf};

use kevel_cgroup::{Cpu, Hugetlb, Place};
use kevel_proto::io::containerd::cgroups::v1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat, Metrics,
    PidsStat, Throttle,
};

use super::{Table, number, text};

/// More lines than a node has devices for; what is beyond is left out.
const LINES: usize = 2048;

pub(super) fn metrics(place: &Place) -> Metrics {
    let dir = |controller: &str| place.controllers.get(controller).cloned();
    let oom = |dir: PathBuf| {
        let control = Table::read(Some(dir.join("memory.oom_control")));
        MemoryOomControl {
            oom_kill_disable: control.get("oom_kill_disable"),
            under_oom: control.get("under_oom"),
            oom_kill: control.get("oom_kill"),
        }
    };
    let huge = |one: Hugetlb| HugetlbStat {
        usage: one.usage.unwrap_or(0),
        max: one.peak.unwrap_or(0),
        failcnt: one.failures.unwrap_or(0),
        pagesize: one.page,
    };
    Metrics {
        hugetlb: Hugetlb::of(place).into_iter().map(huge).collect(),
        pids: dir("pids").map(|dir| PidsStat {
            current: number(dir.join("pids.current")),
            limit: Some(number(dir.join("pids.max"))).filter(|limit| *limit != u64::MAX).unwrap_or(0),
        }),
        cpu: (dir("cpuacct").is_some() || dir("cpu").is_some()).then(|| cpu(place)),
        memory: dir("memory").map(|dir| memory(&dir)),
        blkio: dir("blkio").map(|dir| blkio(&dir)),
        rdma: None,
        network: Vec::new(),
        cgroup_stats: None,
        memory_oom_control: dir("memory").map(oom),
    }
}

fn cpu(place: &Place) -> CpuStat {
    let cpu = Cpu::of(place);
    let each = place.controllers.get("cpuacct").map(|dir| text(dir.join("cpuacct.usage_percpu"))).unwrap_or_default();
    CpuStat {
        usage: Some(CpuUsage {
            total: cpu.usage.unwrap_or(0),
            kernel: cpu.system.unwrap_or(0),
            user: cpu.user.unwrap_or(0),
            per_cpu: each.split_whitespace().filter_map(|nanos| nanos.parse().ok()).collect(),
        }),
        throttling: Some(Throttle {
            periods: cpu.periods.unwrap_or(0),
            throttled_periods: cpu.throttled_periods.unwrap_or(0),
            throttled_time: cpu.throttled.unwrap_or(0),
        }),
    }
}

fn memory(dir: &Path) -> MemoryStat {
    let stat = Table::read(Some(dir.join("memory.stat")));
    let entry = |name: &str| {
        let file = |kind: &str| dir.join(format!("memory.{name}{kind}"));
        file("usage_in_bytes").exists().then(|| MemoryEntry {
            limit: number(file("limit_in_bytes")),
            usage: number(file("usage_in_bytes")),
            max: number(file("max_usage_in_bytes")),
            failcnt: number(file("failcnt")),
        })
    };
    MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
    }
}

fn blkio(dir: &Path) -> BlkIoStat {
    // The counts of the throttling layer are there whatever the scheduler is; with those below, first.
    let read = |names: &[&str]| {
        let texts = names.iter().map(|name| text(dir.join(format!("blkio.{name}"))));
        entries(&texts.into_iter().find(|text| text.lines().count() > 1).unwrap_or_default())
    };
    let bytes = ["io_service_bytes_recursive", "throttle.io_service_bytes_recursive", "throttle.io_service_bytes"];
    let counts = ["io_serviced_recursive", "throttle.io_serviced_recursive", "throttle.io_serviced"];
    BlkIoStat {
        io_service_bytes_recursive: read(&bytes),
        io_serviced_recursive: read(&counts),
        io_queued_recursive: read(&["io_queued_recursive"]),
        io_service_time_recursive: read(&["io_service_time_recursive"]),
        io_wait_time_recursive: read(&["io_wait_time_recursive"]),
        io_merged_recursive: read(&["io_merged_recursive"]),
        io_time_recursive: read(&["time_recursive"]),
        sectors_recursive: read(&["sectors_recursive"]),
    }
}

/// Lines such as `8:16 Read 4096`, of which some files leave out the word; the last line is a total.
fn entries(text: &str) -> Vec<BlkIoEntry> {
    let entry = |line: &str| {
        let (numbers, rest) = line.split_once(' ')?;
        let (major, minor) = numbers.split_once(':')?;
        let (op, value) = rest.trim().rsplit_once(' ').unwrap_or(("", rest.trim()));
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        Some(BlkIoEntry { op: op.to_owned(), device: String::new(), major, minor, value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).take(LINES).collect()
}
