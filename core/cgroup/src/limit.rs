//! What a cgroup may use, as the kernel enforces it now; it changes when a container is resized.

use crate::{
    Place,
    file::{limit, number, text},
};

/// Limits. `None` is no limit or nothing that the kernel tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The share of CPU in a contest, in version 1's measure (2 to 262144).
    pub cpu_shares: Option<u64>,
    /// Microseconds of a quota's period.
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU time in a period.
    pub cpu_quota: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes that are left alone when memory is short.
    pub memory_reservation: Option<u64>,
    /// Bytes of memory and swap together in version 1, of swap in version 2.
    pub swap: Option<u64>,
    /// Whether the kernel accounts for swap, so that [`Limits::swap`] says something.
    pub has_swap: bool,
}

impl Limits {
    /// Reads a place.
    pub fn of(place: &Place) -> Self {
        match &place.unified {
            Some(dir) => {
                let max = text(dir.join("cpu.max"));
                let mut fields = max.split_whitespace();
                let quota = fields.next().and_then(|quota| quota.parse().ok());
                Self {
                    cpu_shares: number(dir.join("cpu.weight")).map(shares),
                    cpu_period: fields.next().and_then(|period| period.parse().ok()),
                    cpu_quota: quota,
                    memory: limit(dir.join("memory.max")),
                    memory_reservation: limit(dir.join("memory.low")).filter(|low| *low > 0),
                    swap: limit(dir.join("memory.swap.max")),
                    has_swap: dir.join("memory.swap.max").exists(),
                }
            }
            None => {
                let value = |controller, file| place.v1(controller, file).and_then(number);
                let limited = |file| place.v1("memory", file).and_then(limit);
                let swap = place.v1("memory", "memory.memsw.limit_in_bytes");
                Self {
                    cpu_shares: value("cpu", "cpu.shares"),
                    cpu_period: value("cpu", "cpu.cfs_period_us"),
                    cpu_quota: value("cpu", "cpu.cfs_quota_us"), // -1, which is no number here, for no quota
                    memory: limited("memory.limit_in_bytes"),
                    memory_reservation: limited("memory.soft_limit_in_bytes"),
                    has_swap: swap.as_ref().is_some_and(|path| path.exists()),
                    swap: swap.and_then(limit),
                }
            }
        }
    }
}

/// Version 1's shares of version 2's weight (1 to 10000): the inverse of the line that OCI runtimes draw between both.
fn shares(weight: u64) -> u64 {
    2 + (weight.clamp(1, 10_000) - 1) * 262_142 / 9999
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::fixture;

    #[test]
    fn version_2() {
        let (_dir, place) = fixture::v2(&[
            ("cpu.weight", "39\n"),
            ("cpu.max", "20000 100000\n"),
            ("memory.max", "64\n"),
            ("memory.low", "0\n"),
            ("memory.swap.max", "max\n"),
        ]);
        let want = Limits {
            cpu_shares: Some(998),
            cpu_period: Some(100_000),
            cpu_quota: Some(20_000),
            memory: Some(64),
            memory_reservation: None,
            swap: None,
            has_swap: true,
        };
        assert_eq!(Limits::of(&place), want);
        let (_dir, place) = fixture::v2(&[("cpu.max", "max 100000\n")]);
        let want = Limits { cpu_period: Some(100_000), ..Limits::default() };
        assert_eq!(Limits::of(&place), want);
    }

    #[test]
    fn version_1() {
        let (_dir, place) = fixture::v1(&[
            ("cpu.shares", "1024\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpu.cfs_quota_us", "-1\n"),
            ("memory.limit_in_bytes", "64\n"),
            ("memory.soft_limit_in_bytes", "9223372036854771712\n"),
        ]);
        let want = Limits { cpu_shares: Some(1024), cpu_period: Some(100_000), memory: Some(64), ..Limits::default() };
        assert_eq!(Limits::of(&place), want);
    }

    #[test]
    fn shares_of_weights() {
        for (weight, want) in [(0, 2), (1, 2), (100, 2597), (10_000, 262_144), (u64::MAX, 262_144)] {
            assert_eq!(shares(weight), want, "{weight}");
        }
    }
}
