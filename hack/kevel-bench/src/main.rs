//! Measures Kevel and containerd side by side: same images, shim, runc and CNI configuration, in alternating rounds of one
//! run. `hack/bench` builds and calls it.
//!
//! A figure of one runtime means little on a machine that does other things meanwhile; the ratio of two that took turns
//! does. No threshold fails a run.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod cgroup;
mod chart;
mod client;
mod images;
mod measure;
mod memory;
mod report;
mod sample;
mod side;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};

use measure::Bench;
use sample::Group;

/// Kevel and another runtime side by side: a table, and a report with a chart.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Rounds of single pods; bursts and pulls get a fifth as many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Pods of a burst, 16 at a time.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pods: u32,
    /// Where the report goes.
    #[arg(long, default_value = "bench-report")]
    out: PathBuf,
    /// Only these groups.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// One round of everything with two pods and small images: shows that it works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// The daemon to measure; the one beside this program if not said.
    #[arg(long)]
    keveld: Option<PathBuf>,
    /// What to compare with: a containerd, or another keveld to see what a change brought. containerd if not said.
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Where images are kept between runs, with a registry that goes on running; a temporary place if not said.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Where roots and states of the runtimes are; must be on a file system that overlays work on.
    #[arg(long, default_value = "/var/tmp")]
    work: PathBuf,
}

impl Options {
    fn wants(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }

    /// What `--quick` stands for.
    fn settled(mut self) -> Self {
        if self.quick {
            (self.rounds, self.pods) = (1, 2);
        }
        self
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse().settled()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kevel-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("run as root: it starts containers");
    }
    let mut bench = Bench::start(options).await?;
    let measured = tokio::select! {
        measured = bench.measure() => measured,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    // Whatever happened, nothing is left behind.
    let cleaned = bench.clean().await;
    measured.and(cleaned)?;
    print!("{}", report::table(&bench.samples, &bench.names()));
    let out = bench.options.out.clone();
    report::write(&out, &bench).with_context(|| format!("writing the report to {}", out.display()))?;
    println!("\nreport: {}", out.join("report.md").display());
    let missing = bench.samples.missing(|group| bench.options.wants(group));
    if !missing.is_empty() {
        bail!("nothing was measured for {}", missing.join(", "));
    }
    Ok(())
}

async fn interrupted() {
    let Ok(mut ended) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else { return };
    tokio::select! {
        _ = ended.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Names of groups as the command line has them.
fn group_name(group: Group) -> String {
    group.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
