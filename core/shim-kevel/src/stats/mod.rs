//! What a container uses, in containerd's messages for both versions of cgroups, read from cgroupfs without a runtime.

mod v1;
mod v2;

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use kevel_cgroup::Place;
use kevel_proto::any;
use prost_types::Any;

/// More than any of the files has; what is longer is cut there.
const LIMIT: u64 = 1 << 20;

/// Reads everything.
pub(crate) fn read(place: &Place) -> Any {
    match &place.unified {
        Some(dir) => any::pack(&v2::metrics(place, dir)),
        None => any::pack(&v1::metrics(place)),
    }
}

/// A file's text; empty when there is none.
fn text(path: impl AsRef<Path>) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(LIMIT).read_to_string(&mut text); // what was read before an error is as good as nothing
    }
    text
}

/// Lines of a word and a number.
struct Table(HashMap<String, u64>);

impl Table {
    fn read(path: Option<PathBuf>) -> Self {
        let text = path.map(text).unwrap_or_default();
        let pair = |line: &str| {
            line.split_once(' ').and_then(|(word, number)| Some((word.into(), number.trim().parse().ok()?)))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    /// A number; zero when the kernel does not tell.
    fn get(&self, word: &str) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }
}

/// The one number of a file; the largest for `max`, zero without a file.
fn number(path: impl AsRef<Path>) -> u64 {
    match text(path).trim() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kevel_cgroup::Hierarchies;
    use kevel_proto::io::containerd::cgroups::{v1::Metrics as V1, v2::Metrics as V2};

    use super::*;

    fn place(unified: bool, files: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let path = dir.path().to_owned();
        let names = ["cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb"];
        let place = if unified {
            Place { unified: Some(path), controllers: BTreeMap::new() }
        } else {
            Place { unified: None, controllers: names.map(|name| (name.to_owned(), path.clone())).into() }
        };
        (dir, place)
    }

    #[test]
    fn version_2() {
        let pressure =
            "some avg10=1.50 avg60=0.00 avg300=0.25 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n";
        let (_dir, place) = place(
            true,
            &[
                ("cpu.stat", "usage_usec 7\nuser_usec 3\nsystem_usec 4\nnr_throttled 2\nnr_bursts 5\n"),
                ("cpu.pressure", pressure),
                ("memory.stat", "anon 11\nfile 12\nworkingset_refault_anon 1\nworkingset_refault_file 2\npgfault 8\n"),
                ("memory.current", "100\n"),
                ("memory.max", "max\n"),
                ("memory.swap.max", "50\n"),
                ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
                ("pids.current", "4\n"),
                ("pids.max", "max\n"),
                ("io.stat", "8:16 rbytes=4096 wbytes=512 rios=2 wios=1\n"),
                ("hugetlb.2MB.current", "6\n"),
                ("hugetlb.2MB.max", "max\n"),
                ("hugetlb.2MB.events", "max 2\n"),
            ],
        );
        let metrics: V2 = any::unpack(&read(&place)).unwrap();
        let cpu = metrics.cpu.unwrap();
        assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec, cpu.nr_throttled, cpu.nr_bursts), (7, 3, 4, 2, 5));
        let psi = cpu.psi.unwrap();
        assert_eq!((psi.some.unwrap().avg10, psi.full.unwrap().total), (1.5, 4));
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.anon, memory.file, memory.pgfault, memory.workingset_refault), (11, 12, 8, 3));
        assert_eq!((memory.usage, memory.usage_limit, memory.swap_limit, memory.psi), (100, u64::MAX, 50, None));
        assert_eq!(metrics.memory_events.unwrap().max, 3);
        let pids = metrics.pids.unwrap();
        assert_eq!((pids.current, pids.limit), (4, 0));
        let io = &metrics.io.unwrap().usage[0];
        assert_eq!((io.major, io.minor, io.rbytes, io.wios), (8, 16, 4096, 1));
        let huge = &metrics.hugetlb[0];
        assert_eq!((huge.pagesize.as_str(), huge.current, huge.max, huge.failcnt), ("2MB", 6, u64::MAX, 2));
    }

    #[test]
    fn version_1() {
        let bytes = "8:16 Read 4096\n8:16 Total 4096\nTotal 4096\n";
        let (_dir, place) = place(
            false,
            &[
                ("cpuacct.usage", "9\n"),
                ("cpuacct.stat", "user 2\nsystem 3\n"),
                ("cpuacct.usage_percpu", "4 5\n"),
                ("cpu.stat", "nr_periods 7\nnr_throttled 2\nthrottled_time 6\n"),
                ("memory.stat", "cache 1\nrss 2\ntotal_cache 3\ntotal_pgfault 8\nhierarchical_memsw_limit 5\n"),
                ("memory.usage_in_bytes", "100\n"),
                ("memory.limit_in_bytes", "200\n"),
                ("memory.max_usage_in_bytes", "150\n"),
                ("memory.failcnt", "1\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
                ("pids.current", "4\n"),
                ("pids.max", "10\n"),
                ("blkio.throttle.io_service_bytes", bytes),
                ("hugetlb.1GB.usage_in_bytes", "6\n"),
            ],
        );
        let metrics: V1 = any::unpack(&read(&place)).unwrap();
        let cpu = metrics.cpu.unwrap();
        let usage = cpu.usage.unwrap();
        assert_eq!((usage.total, usage.user, usage.kernel, usage.per_cpu), (9, 20_000_000, 30_000_000, vec![4, 5]));
        assert_eq!(cpu.throttling.unwrap().throttled_time, 6);
        let memory = metrics.memory.unwrap();
        assert_eq!(
            (memory.cache, memory.total_cache, memory.total_pg_fault, memory.hierarchical_swap_limit),
            (1, 3, 8, 5)
        );
        let usage = memory.usage.unwrap();
        assert_eq!((usage.usage, usage.limit, usage.max, usage.failcnt), (100, 200, 150, 1));
        assert_eq!((memory.swap, metrics.memory_oom_control.unwrap().oom_kill), (None, 3));
        assert_eq!(metrics.pids.unwrap().limit, 10);
        let io = &metrics.blkio.unwrap().io_service_bytes_recursive;
        assert_eq!((io.len(), io[0].op.as_str(), io[0].major, io[0].value), (2, "Read", 8, 4096));
        assert_eq!((metrics.hugetlb[0].pagesize.as_str(), metrics.hugetlb[0].usage), ("1GB", 6));
    }

    #[test]
    fn a_process_of_this_machine() {
        let place = Hierarchies::of_node().unwrap().place(std::process::id()).unwrap();
        let metrics = read(&place);
        if place.unified.is_some() {
            assert!(any::unpack::<V2>(&metrics).unwrap().cpu.is_some());
        } else {
            assert!(any::unpack::<V1>(&metrics).unwrap().memory.unwrap().usage.unwrap().usage > 0);
        }
    }
}
