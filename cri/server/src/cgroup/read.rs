//! The numbers.

use std::{fs, path::Path};

use super::Place;

/// What a cgroup uses. `None` is what the kernel does not tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// CPU time in nanoseconds.
    pub(crate) cpu: Option<u64>,
    /// Bytes of memory, caches included.
    pub(crate) memory: Option<u64>,
    /// Bytes of file caches that can go at once.
    pub(crate) inactive_file: u64,
    /// Bytes of anonymous memory.
    pub(crate) rss: Option<u64>,
    /// The limit in bytes; none when there is none.
    pub(crate) limit: Option<u64>,
    /// Page faults.
    pub(crate) faults: Option<u64>,
    /// Page faults that read from a disk.
    pub(crate) major_faults: Option<u64>,
    /// Bytes in swap.
    pub(crate) swap: Option<u64>,
    /// Bytes that may be in swap; none when there is no limit.
    pub(crate) swap_limit: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
    /// Waiting for CPU, memory and disks.
    pub(crate) pressure: [Option<Pressure>; 3],
}

/// How long tasks waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pressure {
    /// At least one of them.
    pub(crate) some: Stall,
    /// All of them at once.
    pub(crate) full: Stall,
}

/// Shares of the last 10, 60 and 300 seconds in percent, and the sum in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stall {
    pub(crate) avg10: f64,
    pub(crate) avg60: f64,
    pub(crate) avg300: f64,
    pub(crate) total: u64,
}

/// Version 1 says "no limit" with the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

impl Reading {
    /// Reads a place; what cannot be read is `None`.
    pub(crate) fn of(place: &Place) -> Self {
        match &place.unified {
            Some(dir) => Self::unified(dir),
            None => Self::v1(place),
        }
    }

    fn unified(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        let stat = text(&file("memory.stat"));
        let pressure = |name: &str| parse_pressure(&text(&file(name)));
        Self {
            cpu: line(&text(&file("cpu.stat")), "usage_usec").map(|micros| micros.saturating_mul(1000)),
            memory: number(&file("memory.current")),
            inactive_file: line(&stat, "inactive_file").unwrap_or(0),
            rss: line(&stat, "anon"),
            limit: number(&file("memory.max")),
            faults: line(&stat, "pgfault"),
            major_faults: line(&stat, "pgmajfault"),
            swap: number(&file("memory.swap.current")),
            swap_limit: number(&file("memory.swap.max")),
            pids: number(&file("pids.current")),
            pressure: [pressure("cpu.pressure"), pressure("memory.pressure"), pressure("io.pressure")],
        }
    }

    fn v1(place: &Place) -> Self {
        let value = |controller: &str, file: &str| place.v1(controller, file).and_then(|path| number(&path));
        let stat = place.v1("memory", "memory.stat").map(|path| text(&path)).unwrap_or_default();
        let limited = |file: &str| value("memory", file).filter(|limit| *limit < NO_LIMIT);
        let (memory, both) = (value("memory", "memory.usage_in_bytes"), value("memory", "memory.memsw.usage_in_bytes"));
        let limit = limited("memory.limit_in_bytes");
        Self {
            cpu: value("cpuacct", "cpuacct.usage"),
            memory,
            inactive_file: line(&stat, "total_inactive_file").unwrap_or(0),
            rss: line(&stat, "total_rss"),
            limit,
            faults: line(&stat, "total_pgfault"),
            major_faults: line(&stat, "total_pgmajfault"),
            swap: both.zip(memory).map(|(both, memory)| both.saturating_sub(memory)),
            swap_limit: limited("memory.memsw.limit_in_bytes")
                .zip(limit)
                .map(|(both, limit)| both.saturating_sub(limit)),
            pids: value("pids", "pids.current"),
            pressure: [None; 3],
        }
    }

    /// Memory that cannot be taken back at once.
    pub(crate) fn working_set(&self) -> Option<u64> {
        self.memory.map(|memory| memory.saturating_sub(self.inactive_file))
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}

/// The number behind a word at the beginning of a line.
fn line(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok())
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| -> Option<Stall> {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let field = |name: &str| line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let share = |name: &str| field(name)?.parse().ok();
        Some(Stall {
            avg10: share("avg10")?,
            avg60: share("avg60")?,
            avg300: share("avg300")?,
            total: field("total")?.parse().ok()?,
        })
    };
    Some(Pressure { some: stall("some")?, full: stall("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            fs::write(dir.join(name), content).unwrap();
        }
    }

    #[test]
    fn version_2() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("cpu.stat", "usage_usec 5\nuser_usec 1\n"),
                ("memory.current", "100\n"),
                ("memory.max", "max\n"),
                ("memory.stat", "anon 7\nfile 9\ninactive_file 30\npgfault 2\npgmajfault 1\n"),
                ("pids.current", "3\n"),
                (
                    "cpu.pressure",
                    "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n",
                ),
            ],
        );
        let reading = Reading::of(&Place { unified: Some(dir.path().to_owned()), ..Place::default() });
        assert_eq!((reading.cpu, reading.memory, reading.limit), (Some(5000), Some(100), None));
        assert_eq!((reading.working_set(), reading.rss, reading.pids), (Some(70), Some(7), Some(3)));
        let pressure = reading.pressure[0].unwrap();
        assert_eq!((pressure.some.avg10, pressure.full.total, reading.pressure[1]), (1.5, 4, None));
    }

    #[test]
    fn version_1() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("cpuacct.usage", "11\n"),
                ("memory.usage_in_bytes", "100\n"),
                ("memory.memsw.usage_in_bytes", "120\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.stat", "cache 1\ntotal_rss 8\ntotal_inactive_file 200\n"),
            ],
        );
        let controllers = ["cpuacct", "memory"].map(|name| (name.to_owned(), dir.path().to_owned())).into();
        let reading = Reading::of(&Place { unified: None, controllers });
        assert_eq!((reading.cpu, reading.limit, reading.swap), (Some(11), None, Some(20)));
        assert_eq!((reading.working_set(), reading.rss, reading.pids), (Some(0), Some(8), None));
    }
}
