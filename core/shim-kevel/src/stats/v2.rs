//! Version 2.

use std::path::Path;

use kevel_cgroup::{Hugetlb, Io, Place, Pressure, Pressures, Stall};
use kevel_proto::io::containerd::cgroups::v2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData, PsiStats, RdmaEntry,
    RdmaStat,
};

use super::{Table, number, text};

pub(super) fn metrics(place: &Place, dir: &Path) -> Metrics {
    let has = |file: &str| dir.join(file).exists();
    let pressures = Pressures::of(place);
    let events = Table::read(Some(dir.join("memory.events")));
    Metrics {
        pids: has("pids.current").then(|| PidsStat {
            current: number(dir.join("pids.current")),
            limit: Some(number(dir.join("pids.max"))).filter(|limit| *limit != u64::MAX).unwrap_or(0),
        }),
        cpu: has("cpu.stat").then(|| cpu(dir, pressures.cpu)),
        memory: has("memory.current").then(|| memory(dir, pressures.memory)),
        rdma: has("rdma.current").then(|| RdmaStat {
            current: rdma(&text(dir.join("rdma.current"))),
            limit: rdma(&text(dir.join("rdma.max"))),
        }),
        io: has("io.stat")
            .then(|| IoStat { usage: Io::of(place).into_iter().map(io).collect(), psi: pressures.io.map(psi) }),
        hugetlb: Hugetlb::of(place).into_iter().map(|one| hugetlb(dir, one)).collect(),
        memory_events: has("memory.events").then(|| MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            oom_group_kill: events.get("oom_group_kill"),
        }),
        network: Vec::new(),
    }
}

fn cpu(dir: &Path, pressure: Option<Pressure>) -> CpuStat {
    let stat = Table::read(Some(dir.join("cpu.stat")));
    CpuStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        psi: pressure.map(psi),
        nr_bursts: stat.get("nr_bursts"),
        burst_usec: stat.get("burst_usec"),
    }
}

fn memory(dir: &Path, pressure: Option<Pressure>) -> MemoryStat {
    let stat = Table::read(Some(dir.join("memory.stat")));
    // Kernels since 5.9 tell these for both sorts of memory apart.
    let both = |word: &str| {
        stat.get(word).max(stat.get(&format!("{word}_anon")).saturating_add(stat.get(&format!("{word}_file"))))
    };
    MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        workingset_refault: both("workingset_refault"),
        workingset_activate: both("workingset_activate"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        usage: number(dir.join("memory.current")),
        usage_limit: number(dir.join("memory.max")),
        swap_usage: number(dir.join("memory.swap.current")),
        swap_limit: number(dir.join("memory.swap.max")),
        max_usage: number(dir.join("memory.peak")),
        swap_max_usage: number(dir.join("memory.swap.peak")),
        psi: pressure.map(psi),
    }
}

fn psi(pressure: Pressure) -> PsiStats {
    let data =
        |stall: Stall| PsiData { avg10: stall.avg10, avg60: stall.avg60, avg300: stall.avg300, total: stall.total };
    PsiStats { some: Some(data(pressure.some)), full: Some(data(pressure.full)) }
}

fn io(io: Io) -> IoEntry {
    IoEntry {
        major: io.device.0.into(),
        minor: io.device.1.into(),
        rbytes: io.read_bytes,
        wbytes: io.write_bytes,
        rios: io.reads,
        wios: io.writes,
    }
}

fn hugetlb(dir: &Path, one: Hugetlb) -> HugeTlbStat {
    let file = |kind: &str| dir.join(format!("hugetlb.{}.{kind}", one.page));
    HugeTlbStat {
        current: one.usage.unwrap_or(0),
        max: number(file("max")),
        failcnt: Table::read(Some(file("events"))).get("max"),
        pagesize: one.page.clone(),
    }
}

/// Lines such as `mlx4_0 hca_handle=2 hca_object=max`.
fn rdma(text: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let mut entry = RdmaEntry { device: fields.next()?.to_owned(), ..RdmaEntry::default() };
        for (name, value) in fields.filter_map(|field| field.split_once('=')) {
            let value = if value == "max" { u32::MAX } else { value.parse().unwrap_or(0) };
            match name {
                "hca_handle" => entry.hca_handles = value,
                "hca_object" => entry.hca_objects = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}
