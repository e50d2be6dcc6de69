//! What a run shows: the table, and a folder with the report, the chart and every figure.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    chart,
    measure::{Bench, find},
    sample::{ROWS, Samples, Which},
};

/// On what was measured.
pub(crate) struct Facts(Vec<(&'static str, String)>);

impl Facts {
    pub(crate) async fn collect(keveld: &Path, baseline: &Path, search: &OsString) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let line = |text: &str, key: &str| {
            let found = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split_once(':'));
            found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let shim = find("containerd-shim-runc-v2", search).unwrap_or_default();
        let runc = find("runc", search).unwrap_or_default();
        Self(vec![
            ("processor", format!("{} x {}", cores, line(&read("/proc/cpuinfo"), "model name"))),
            ("memory", line(&read("/proc/meminfo"), "MemTotal")),
            ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
            ("kevel", version(keveld, "--version").await),
            ("baseline", version(baseline, "--version").await),
            ("shim", version(&shim, "-v").await),
            ("runc", version(&runc, "--version").await),
        ])
    }
}

/// What a program says of its version, on one line.
async fn version(program: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output().await else { return String::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().take(3).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("; ")
}

/// The table as plain text; rows that were not asked for are left out.
pub(crate) fn table(samples: &Samples, names: &[String; 2]) -> String {
    let mut text = format!("{:<40} {:>12} {:>20} {:>8}  unit\n", "", names[0], names[1], "ratio");
    for row in ROWS {
        let median = |which| samples.median(row.id, which).map_or_else(String::new, figure);
        let (kevel, baseline) = (median(Which::Kevel), median(Which::Baseline));
        if kevel.is_empty() && baseline.is_empty() {
            continue;
        }
        let factor = samples.factor(row).map_or_else(String::new, |factor| format!("{factor:.2}x"));
        let _ = writeln!(text, "{:<40} {kevel:>12} {baseline:>20} {factor:>8}  {}", row.label, row.unit);
    }
    text.push_str("ratio: above 1, Kevel is that many times better\n");
    text
}

/// Three significant digits.
fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

/// Writes `report.md`, `chart.svg` and `results.json`.
pub(crate) fn write(out: &Path, bench: &Bench) -> anyhow::Result<()> {
    fs::create_dir_all(out)?;
    fs::write(out.join("report.md"), markdown(bench))?;
    fs::write(out.join("chart.svg"), chart::draw(&bench.samples, &bench.names()))?;
    fs::write(out.join("results.json"), serde_json::to_string_pretty(&json(bench))?)?;
    Ok(())
}

fn markdown(bench: &Bench) -> String {
    let names = bench.names();
    let (kevel, other) = (&names[0], &names[1]);
    let mut text = format!(
        "# {kevel} and {other} side by side\n\nMedians of alternating rounds in one run; {} rounds of single pods, bursts of \
         {} pods. The ratio says how many times better {kevel} is; only it means something on another machine.\n\n",
        bench.options.rounds, bench.options.pods
    );
    if bench.options.quick {
        text.push_str("Quick mode: small images stand in for the big ones, and one round measures nothing.\n\n");
    }
    let _ = writeln!(
        text,
        "![ratios](chart.svg)\n\n| | {kevel} | {other} | unit | ratio | samples |\n|---|--:|--:|---|--:|--:|"
    );
    for row in ROWS {
        let Some(factor) = bench.samples.factor(row) else { continue };
        let median = |which| bench.samples.median(row.id, which).map_or_else(String::new, figure);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {factor:.2} | {} |",
            row.label,
            median(Which::Kevel),
            median(Which::Baseline),
            row.unit,
            bench.samples.of(row.id, Which::Kevel).len()
        );
    }
    text.push_str("\n| | |\n|---|---|\n");
    for (name, value) in &bench.facts.0 {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text
}

/// Every figure, for whoever wants to know more than medians.
fn json(bench: &Bench) -> Value {
    let row = |row: &crate::sample::Row| {
        json!({
            "id": row.id,
            "label": row.label,
            "unit": row.unit,
            "kevel": bench.samples.of(row.id, Which::Kevel),
            "baseline": bench.samples.of(row.id, Which::Baseline),
            "ratio": bench.samples.factor(row),
        })
    };
    let facts: serde_json::Map<_, _> =
        bench.facts.0.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "at": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "names": bench.names(),
        "rounds": bench.options.rounds,
        "pods": bench.options.pods,
        "quick": bench.options.quick,
        "machine": facts,
        "rows": ROWS.iter().map(row).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_what_was_measured() {
        let mut samples = Samples::default();
        samples.put("run_pod", Which::Kevel, 50.0);
        samples.put("run_pod", Which::Baseline, 125.0);
        let text = table(&samples, &["kevel".to_owned(), "containerd".to_owned()]);
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["RunPodSandbox", "50.0", "125", "2.50x", "ms"]);
        assert_eq!(text.lines().count(), 3);
    }
}
