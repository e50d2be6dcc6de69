//! The whole of `hack/bench` with tiny numbers: every row gets figures from both runtimes, the report is there, and nothing
//! is left. Needs root and what `hack/install-deps` installs; what it measures is of no interest.

use std::{fs, path::Path, process::Command};

const ROWS: &[&str] = &[
    "RunPodSandbox",
    "CreateContainer",
    "StartContainer",
    "CreateContainer + StartContainer",
    "StopContainer (exits on SIGTERM)",
    "RemoveContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
    "a pod's life, CPU of every process",
    "ExecSync /bin/true",
    "ExecSync, 8 in parallel",
    "ExecSync, CPU of every process",
    "burst up: wall",
    "burst up: CPU of every process",
    "burst up: CPU of the daemon",
    "burst down: wall",
    "burst down: CPU of every process",
    "burst down: CPU of the daemon",
    "ListContainers",
    "ListPodSandbox",
    "ListContainerStats",
    "ListPodSandboxStats",
    "daemon, PSS without pods",
    "daemon, PSS with the burst's pods",
    "shim, PSS for each pod",
    "restart with pods: Version",
    "restart with pods: all listed",
    "pull + unpack: 20 layers, gzip",
    "pull + unpack: 20 layers, gzip, CPU",
    "pull + unpack: 20 layers, zstd",
    "pull + unpack: one 300 MB layer",
    "RemoveImage (20 layers)",
];

#[test]
fn every_row_is_measured_and_nothing_is_left() {
    let bench = Path::new(env!("CARGO_BIN_EXE_kevel-bench"));
    let keveld = bench.with_file_name("keveld");
    assert!(keveld.is_file(), "{} is not built: cargo build --bin keveld", keveld.display());
    let work = tempfile::Builder::new().prefix("kq").tempdir_in("/var/tmp").unwrap();
    let out = work.path().join("report");
    let child = Command::new(bench).args(["--quick", "--out"]).arg(&out).arg("--work").arg(work.path()).output();
    let output = child.unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");

    // A line per row: its label, two figures, the ratio, the unit.
    let report = fs::read_to_string(out.join("report.md")).unwrap();
    for label in ROWS {
        let line = said.lines().find(|line| line.split("  ").next() == Some(*label)).unwrap_or_default();
        let figures: Vec<_> = line.strip_prefix(label).unwrap_or_default().split_whitespace().collect();
        assert!(figures.len() == 4 && figures[0].parse::<f64>().is_ok(), "{label}: {line:?}\n{said}");
        assert!(figures[1].parse::<f64>().is_ok() && figures[2].ends_with('x'), "{label}: {line:?}");
        assert!(report.contains(&format!("| {label} |")), "{label}\n{report}");
    }
    assert!(fs::read_to_string(out.join("chart.svg")).unwrap().ends_with("</svg>\n"));
    let left: Vec<_> = fs::read_dir(work.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["report"], "beside the report");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(work.path().to_str().unwrap()), "{mounts}");
}
