//! How long tasks waited for CPU, memory and disks; version 2 alone tells.

use crate::{Place, file::text};

/// Waiting for each resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressures {
    /// For a CPU.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For a disk.
    pub io: Option<Pressure>,
}

/// How long tasks waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// At least one of them.
    pub some: Stall,
    /// All of them at once.
    pub full: Stall,
}

/// Shares of the last 10, 60 and 300 seconds in percent, and the sum in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Of the last 10 seconds.
    pub avg10: f64,
    /// Of the last 60 seconds.
    pub avg60: f64,
    /// Of the last 300 seconds.
    pub avg300: f64,
    /// Microseconds since the cgroup's beginning.
    pub total: u64,
}

impl Pressures {
    /// Reads a place.
    pub fn of(place: &Place) -> Self {
        let Some(dir) = &place.unified else { return Self::default() };
        let read = |file: &str| parse(&text(dir.join(file)));
        Self { cpu: read("cpu.pressure"), memory: read("memory.pressure"), io: read("io.pressure") }
    }
}

fn parse(text: &str) -> Option<Pressure> {
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
    use crate::file::fixture;

    #[test]
    fn version_2_tells() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.25 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n";
        let (_dir, place) = fixture::v2(&[("cpu.pressure", text), ("io.pressure", "some avg10=x\n")]);
        let pressures = Pressures::of(&place);
        let cpu = pressures.cpu.unwrap();
        assert_eq!((cpu.some.avg10, cpu.some.avg300, cpu.some.total, cpu.full.total), (1.5, 0.25, 9, 4));
        assert_eq!((pressures.memory, pressures.io), (None, None));
        let (_dir, place) = fixture::v1(&[("cpu.pressure", text)]);
        assert_eq!(Pressures::of(&place), Pressures::default());
    }
}
