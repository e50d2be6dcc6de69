//! CPU time, and how often a quota stopped it.

use crate::{
    Place,
    file::{line, number, text},
};

/// CPU time in nanoseconds, counted from the cgroup's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// All of it.
    pub usage: Option<u64>,
    /// In user mode.
    pub user: Option<u64>,
    /// In the kernel.
    pub system: Option<u64>,
    /// Periods of the quota that passed.
    pub periods: Option<u64>,
    /// Periods in which the quota was used up.
    pub throttled_periods: Option<u64>,
    /// How long that stopped tasks.
    pub throttled: Option<u64>,
}

/// Version 1 counts user and system time in hundredths of a second, whatever the kernel's own tick is (USER_HZ).
const TICK: u64 = 10_000_000;

impl Cpu {
    /// Reads a place.
    pub fn of(place: &Place) -> Self {
        match &place.unified {
            Some(dir) => {
                let stat = text(dir.join("cpu.stat"));
                let micros = |word: &str| line(&stat, word).map(|micros| micros.saturating_mul(1000));
                Self {
                    usage: micros("usage_usec"),
                    user: micros("user_usec"),
                    system: micros("system_usec"),
                    periods: line(&stat, "nr_periods"),
                    throttled_periods: line(&stat, "nr_throttled"),
                    throttled: micros("throttled_usec"),
                }
            }
            None => {
                let read = |controller, file| place.v1(controller, file).map(text).unwrap_or_default();
                let (times, stat) = (read("cpuacct", "cpuacct.stat"), read("cpu", "cpu.stat"));
                let ticks = |word: &str| line(&times, word).map(|ticks| ticks.saturating_mul(TICK));
                Self {
                    usage: Self::usage_of(place),
                    user: ticks("user"),
                    system: ticks("system"),
                    periods: line(&stat, "nr_periods"),
                    throttled_periods: line(&stat, "nr_throttled"),
                    throttled: line(&stat, "throttled_time"),
                }
            }
        }
    }

    /// Reads [`Cpu::usage`] alone.
    pub fn usage_of(place: &Place) -> Option<u64> {
        match &place.unified {
            Some(dir) => line(&text(dir.join("cpu.stat")), "usage_usec").map(|micros| micros.saturating_mul(1000)),
            None => place.v1("cpuacct", "cpuacct.usage").and_then(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::fixture;

    #[test]
    fn both_versions_count_nanoseconds() {
        let want = Cpu {
            usage: Some(5_000_000),
            user: Some(20_000_000),
            system: Some(30_000_000),
            periods: Some(7),
            throttled_periods: Some(2),
            throttled: Some(9_000),
        };
        let stat =
            "usage_usec 5000\nuser_usec 20000\nsystem_usec 30000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\n";
        let (_dir, place) = fixture::v2(&[("cpu.stat", stat)]);
        assert_eq!(Cpu::of(&place), want);
        let (_dir, place) = fixture::v1(&[
            ("cpuacct.usage", "5000000\n"),
            ("cpuacct.stat", "user 2\nsystem 3\n"),
            ("cpu.stat", "nr_periods 7\nnr_throttled 2\nthrottled_time 9000\n"),
        ]);
        assert_eq!(Cpu::of(&place), want);
        assert_eq!(Cpu::usage_of(&place), want.usage);
        let (_dir, empty) = fixture::v2(&[]);
        assert_eq!(Cpu::of(&empty), Cpu::default());
    }
}
