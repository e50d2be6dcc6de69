//! What is measured, and the figures.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::ValueEnum;

/// Rows that are measured together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Group {
    /// The life of single pods.
    Pod,
    /// Commands in containers.
    Exec,
    /// Many pods: bursts, lists, memory, restart.
    Load,
    /// Images.
    Pull,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) group: Group,
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    /// Whether a larger figure is a better one.
    pub(crate) rate: bool,
}

const fn row(id: &'static str, group: Group, label: &'static str, unit: &'static str) -> Row {
    Row { id, group, label, unit, rate: false }
}

/// Every row, in the order of the table.
pub(crate) const ROWS: &[Row] = &[
    row("run_pod", Group::Pod, "RunPodSandbox", "ms"),
    row("create", Group::Pod, "CreateContainer", "ms"),
    row("start", Group::Pod, "StartContainer", "ms"),
    row("create_start", Group::Pod, "CreateContainer + StartContainer", "ms"),
    row("stop", Group::Pod, "StopContainer (exits on SIGTERM)", "ms"),
    row("remove", Group::Pod, "RemoveContainer", "ms"),
    row("stop_pod", Group::Pod, "StopPodSandbox", "ms"),
    row("remove_pod", Group::Pod, "RemovePodSandbox", "ms"),
    row("life_cpu", Group::Pod, "a pod's life, CPU of every process", "ms"),
    row("exec", Group::Exec, "ExecSync /bin/true", "ms"),
    Row { rate: true, ..row("exec_rate", Group::Exec, "ExecSync, 8 in parallel", "/s") },
    row("exec_cpu", Group::Exec, "ExecSync, CPU of every process", "ms"),
    row("up_wall", Group::Load, "burst up: wall", "s"),
    row("up_cpu", Group::Load, "burst up: CPU of every process", "s"),
    row("up_daemon", Group::Load, "burst up: CPU of the daemon", "s"),
    row("down_wall", Group::Load, "burst down: wall", "s"),
    row("down_cpu", Group::Load, "burst down: CPU of every process", "s"),
    row("down_daemon", Group::Load, "burst down: CPU of the daemon", "s"),
    row("list_containers", Group::Load, "ListContainers", "ms"),
    row("list_pods", Group::Load, "ListPodSandbox", "ms"),
    row("list_stats", Group::Load, "ListContainerStats", "ms"),
    row("list_pod_stats", Group::Load, "ListPodSandboxStats", "ms"),
    row("pss_idle", Group::Load, "daemon, PSS without pods", "MiB"),
    row("pss_loaded", Group::Load, "daemon, PSS with the burst's pods", "MiB"),
    row("pss_shim", Group::Load, "shim, PSS for each pod", "MiB"),
    row("restart_version", Group::Load, "restart with pods: Version", "s"),
    row("restart_listed", Group::Load, "restart with pods: all listed", "s"),
    row("pull_gzip", Group::Pull, "pull + unpack: 20 layers, gzip", "s"),
    row("pull_gzip_cpu", Group::Pull, "pull + unpack: 20 layers, gzip, CPU", "s"),
    row("pull_zstd", Group::Pull, "pull + unpack: 20 layers, zstd", "s"),
    row("pull_single", Group::Pull, "pull + unpack: one 300 MB layer", "s"),
    row("remove_image", Group::Pull, "RemoveImage (20 layers)", "s"),
];

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Which {
    /// The runtime that is measured.
    Kevel,
    /// What it is compared with.
    Baseline,
}

impl Which {
    pub(crate) const BOTH: [Self; 2] = [Self::Kevel, Self::Baseline];

    /// Both, beginning with another one each round.
    pub(crate) fn turns(round: u32) -> [Self; 2] {
        if round.is_multiple_of(2) { [Self::Baseline, Self::Kevel] } else { [Self::Kevel, Self::Baseline] }
    }
}

/// The figures of a run, in the units of their rows.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<&'static str, [Vec<f64>; 2]>);

impl Samples {
    /// Adds a figure, in the row's unit.
    pub(crate) fn put(&mut self, id: &'static str, which: Which, value: f64) {
        debug_assert!(ROWS.iter().any(|row| row.id == id), "{id} is no row");
        self.0.entry(id).or_default()[which as usize].push(value);
    }

    /// Adds a time, converted to the row's unit.
    pub(crate) fn time(&mut self, id: &'static str, which: Which, time: Duration) {
        let seconds = ROWS.iter().any(|row| row.id == id && row.unit == "s");
        self.put(id, which, time.as_secs_f64() * if seconds { 1.0 } else { 1e3 });
    }

    /// Every figure of a row.
    pub(crate) fn of(&self, id: &str, which: Which) -> &[f64] {
        self.0.get(id).map_or(&[], |both| &both[which as usize])
    }

    /// The middle one.
    pub(crate) fn median(&self, id: &str, which: Which) -> Option<f64> {
        median(self.of(id, which))
    }

    /// The baseline's median as a multiple of Kevel's; of a rate the other way round. Above one, Kevel is better.
    pub(crate) fn factor(&self, row: &Row) -> Option<f64> {
        let (kevel, baseline) = (self.median(row.id, Which::Kevel)?, self.median(row.id, Which::Baseline)?);
        let (over, under) = if row.rate { (kevel, baseline) } else { (baseline, kevel) };
        (under > 0.0).then(|| over / under)
    }

    /// Rows of wanted groups that lack a figure.
    pub(crate) fn missing(&self, wanted: impl Fn(Group) -> bool) -> Vec<&'static str> {
        let lacks =
            |row: &&Row| wanted(row.group) && Which::BOTH.iter().any(|which| self.of(row.id, *which).is_empty());
        ROWS.iter().filter(lacks).map(|row| row.id).collect()
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// How long something took, and what it answered.
pub(crate) async fn timed<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(T, Duration)> {
    let begun = Instant::now();
    let answer = work.await?;
    Ok((answer, begun.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_factors() {
        for (values, want) in
            [(&[][..], None), (&[3.0], Some(3.0)), (&[9.0, 1.0, 2.0], Some(2.0)), (&[4.0, 1.0], Some(2.5))]
        {
            assert_eq!(median(values), want);
        }
        let mut samples = Samples::default();
        for (id, kevel, baseline, want) in [("run_pod", 10.0, 25.0, 2.5), ("exec_rate", 90.0, 30.0, 3.0)] {
            samples.put(id, Which::Kevel, kevel);
            samples.put(id, Which::Baseline, baseline);
            let row = ROWS.iter().find(|row| row.id == id).unwrap();
            assert_eq!(samples.factor(row), Some(want), "{id}");
        }
        samples.time("up_wall", Which::Kevel, Duration::from_millis(1500));
        samples.time("stop", Which::Kevel, Duration::from_millis(15));
        assert_eq!((samples.of("up_wall", Which::Kevel), samples.of("stop", Which::Kevel)), (&[1.5][..], &[15.0][..]));
        let missing = samples.missing(|group| group == Group::Exec);
        assert_eq!(missing, ["exec", "exec_cpu"]);
    }

    #[test]
    fn ids_are_unique_and_turns_alternate() {
        let mut ids: Vec<_> = ROWS.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROWS.len());
        assert_ne!(Which::turns(1), Which::turns(2));
    }
}
