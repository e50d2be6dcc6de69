//! Memory: what is used, of which sort, and how often the limit was hit.

use crate::{
    Place,
    file::{limit, line, number, text},
};

/// Memory in bytes, of the cgroup and those below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it, caches included.
    pub usage: Option<u64>,
    /// The most that it was. Version 2 tells since Linux 5.19.
    pub peak: Option<u64>,
    /// The limit; none when there is none.
    pub limit: Option<u64>,
    /// How often the limit was hit.
    pub failures: Option<u64>,
    /// File caches.
    pub cache: Option<u64>,
    /// Anonymous memory.
    pub rss: Option<u64>,
    /// Files mapped into processes.
    pub mapped_file: Option<u64>,
    /// The kernel's own, on behalf of processes.
    pub kernel: Option<u64>,
    /// File caches that were used lately.
    pub active_file: Option<u64>,
    /// File caches that can go at once.
    pub inactive_file: Option<u64>,
    /// Page faults.
    pub faults: Option<u64>,
    /// Page faults that read from a disk.
    pub major_faults: Option<u64>,
    /// Bytes in swap.
    pub swap: Option<u64>,
    /// Bytes that may be in swap; none when there is no limit.
    pub swap_limit: Option<u64>,
    /// Dirty file caches.
    pub dirty: Option<u64>,
    /// File caches that are being written.
    pub writeback: Option<u64>,
}

impl Memory {
    /// Reads a place.
    pub fn of(place: &Place) -> Self {
        match &place.unified {
            Some(dir) => {
                let stat = text(dir.join("memory.stat"));
                Self {
                    usage: number(dir.join("memory.current")),
                    peak: number(dir.join("memory.peak")),
                    limit: limit(dir.join("memory.max")),
                    failures: line(&text(dir.join("memory.events")), "max"),
                    cache: line(&stat, "file"),
                    rss: line(&stat, "anon"),
                    mapped_file: line(&stat, "file_mapped"),
                    // `kernel` came with Linux 5.18; before, its parts are told.
                    kernel: line(&stat, "kernel")
                        .or_else(|| Some(line(&stat, "kernel_stack")? + line(&stat, "slab").unwrap_or(0))),
                    active_file: line(&stat, "active_file"),
                    inactive_file: line(&stat, "inactive_file"),
                    faults: line(&stat, "pgfault"),
                    major_faults: line(&stat, "pgmajfault"),
                    swap: number(dir.join("memory.swap.current")),
                    swap_limit: limit(dir.join("memory.swap.max")),
                    dirty: line(&stat, "file_dirty"),
                    writeback: line(&stat, "file_writeback"),
                }
            }
            None => Self::v1(place),
        }
    }

    fn v1(place: &Place) -> Self {
        let path = |file: &str| place.v1("memory", file);
        let value = |file: &str| path(file).and_then(number);
        let limited = |file: &str| path(file).and_then(limit);
        let stat = path("memory.stat").map(text).unwrap_or_default();
        let (usage, both) = (value("memory.usage_in_bytes"), value("memory.memsw.usage_in_bytes"));
        let most = limited("memory.limit_in_bytes");
        let difference =
            |both: Option<u64>, one: Option<u64>| both.zip(one).map(|(both, one)| both.saturating_sub(one));
        Self {
            usage,
            peak: value("memory.max_usage_in_bytes"),
            limit: most,
            failures: value("memory.failcnt"),
            cache: line(&stat, "total_cache"),
            rss: line(&stat, "total_rss"),
            mapped_file: line(&stat, "total_mapped_file"),
            kernel: value("memory.kmem.usage_in_bytes"),
            active_file: line(&stat, "total_active_file"),
            inactive_file: line(&stat, "total_inactive_file"),
            faults: line(&stat, "total_pgfault"),
            major_faults: line(&stat, "total_pgmajfault"),
            // Without accounting for swap there is no memsw; the kernel tells a sum in the statistics then, if any.
            swap: difference(both, usage).or_else(|| line(&stat, "total_swap")),
            swap_limit: difference(limited("memory.memsw.limit_in_bytes"), most),
            dirty: line(&stat, "total_dirty"),
            writeback: line(&stat, "total_writeback"),
        }
    }

    /// Memory that cannot be taken back at once.
    pub fn working_set(&self) -> Option<u64> {
        self.usage.map(|usage| usage.saturating_sub(self.inactive_file.unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::fixture;

    #[test]
    fn version_2() {
        let stat = "anon 7\nfile 9\nkernel_stack 2\nslab 3\nfile_mapped 4\nfile_dirty 5\nfile_writeback 6\n\
            inactive_file 30\nactive_file 31\npgfault 2\npgmajfault 1\n";
        let files = [
            ("memory.current", "100\n"),
            ("memory.peak", "120\n"),
            ("memory.max", "max\n"),
            ("memory.stat", stat),
            ("memory.events", "low 0\nhigh 0\nmax 8\noom 1\noom_kill 1\n"),
            ("memory.swap.current", "10\n"),
            ("memory.swap.max", "50\n"),
        ];
        let (dir, place) = fixture::v2(&files);
        let want = Memory {
            usage: Some(100),
            peak: Some(120),
            limit: None,
            failures: Some(8),
            cache: Some(9),
            rss: Some(7),
            mapped_file: Some(4),
            kernel: Some(5),
            active_file: Some(31),
            inactive_file: Some(30),
            faults: Some(2),
            major_faults: Some(1),
            swap: Some(10),
            swap_limit: Some(50),
            dirty: Some(5),
            writeback: Some(6),
        };
        assert_eq!(Memory::of(&place), want);
        assert_eq!(want.working_set(), Some(70));
        std::fs::write(dir.path().join("memory.stat"), "kernel 44\nkernel_stack 2\n").unwrap();
        assert_eq!(Memory::of(&place).kernel, Some(44));
    }

    #[test]
    fn version_1() {
        let stat = "cache 1\nrss 2\ntotal_cache 3\ntotal_rss 8\ntotal_mapped_file 4\ntotal_inactive_file 200\n\
            total_active_file 5\ntotal_pgfault 6\ntotal_pgmajfault 7\ntotal_swap 99\n";
        let (dir, place) = fixture::v1(&[
            ("memory.usage_in_bytes", "100\n"),
            ("memory.max_usage_in_bytes", "110\n"),
            ("memory.memsw.usage_in_bytes", "120\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.failcnt", "3\n"),
            ("memory.kmem.usage_in_bytes", "12\n"),
            ("memory.stat", stat),
        ]);
        let memory = Memory::of(&place);
        let (usage, peak, most, failures) = (memory.usage, memory.peak, memory.limit, memory.failures);
        assert_eq!((usage, peak, most, failures), (Some(100), Some(110), None, Some(3)));
        assert_eq!((memory.cache, memory.rss, memory.kernel), (Some(3), Some(8), Some(12)));
        assert_eq!((memory.swap, memory.swap_limit, memory.working_set()), (Some(20), None, Some(0)));
        std::fs::remove_file(dir.path().join("memory.memsw.usage_in_bytes")).unwrap();
        assert_eq!(Memory::of(&place).swap, Some(99));
        let write = |file: &str, value: &str| std::fs::write(dir.path().join(file), value).unwrap();
        write("memory.limit_in_bytes", "50\n");
        write("memory.memsw.limit_in_bytes", "80\n");
        assert_eq!((Memory::of(&place).limit, Memory::of(&place).swap_limit), (Some(50), Some(30)));
    }
}
