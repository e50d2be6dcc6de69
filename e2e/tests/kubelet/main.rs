//! A real kubelet and API server on the daemon, driven by kubectl and helm: what users of a cluster do with pods.
//!
//! One cluster serves most steps, since starting it costs more than they do. `KEVEL_SOAK=1` (`hack/test soak`) has the steps
//! that say so do more, over minutes.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

mod app;
mod chart;
mod eviction;
mod gvisor;
mod logs;
mod pods;
mod reboot;
mod standalone;

use std::fs;

use kevel_e2e::{Cluster, ClusterOptions, Leaks, runsc};
use serde_json::Value;

/// Handlers beside the default one, for RuntimeClasses to pick: another shim, and gVisor.
const HANDLERS: &str = r#"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.second]
runtime_type = "io.containerd.runc.v2-rs"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.gvisor]
runtime_type = "io.containerd.runc.v2"
options = { BinaryName = "RUNSC", Root = "DIR/runsc" }
"#;

/// Every rotated log is kept: on a slow machine a test goes on for longer than a few files last.
const LOGS: &str = "containerLogMaxFiles: 1000\n";

#[test]
fn pods_of_a_cluster() {
    let programs = tempfile::tempdir().unwrap();
    let config = HANDLERS.replace("RUNSC", &runsc(programs.path()).unwrap());
    let options = ClusterOptions { config: &config, kubelet: LOGS, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).unwrap();
    let mark = cluster.mark();
    app::run(&cluster);
    pods::events_are_used(&cluster);
    app::reach(&cluster);
    app::change(&cluster);
    pods::streams(&cluster);
    pods::restarts(&cluster);
    gvisor::run(&cluster);
    chart::install(&cluster);
    chart::classes(&cluster);
    chart::everything(&cluster);
    logs::survive_restarts(&cluster);
    app::end(&cluster);
    pods::static_pod(&cluster);
    reboot::run(&cluster);
    drop(cluster);
    assert!(Leaks::of(&mark).is_empty(), "{:#?}", Leaks::of(&mark));
}

/// Whether more than a quick look is asked for.
fn soak() -> bool {
    #[expect(clippy::disallowed_methods, reason = "how much to test is told by the environment")]
    std::env::var_os("KEVEL_SOAK").is_some()
}

/// How many processes of the cluster run a program, by the end of its path.
fn processes(cluster: &Cluster, program: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    let mark = cluster.mark();
    lines.filter(|line| line.contains(&mark) && line.split('\0').next().is_some_and(|at| at.ends_with(program))).count()
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = all.iter().filter_map(|key| pod["status"][key].as_array()).flatten();
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

/// Containers of a pod: name, id and how often it was restarted.
type Identity = Vec<(String, String, u64)>;

/// The containers of a pod and how often they were started anew.
fn identity(pod: &Value) -> Identity {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    statuses
        .map(|one| (text(&one["name"]), text(&one["containerID"]), one["restartCount"].as_u64().unwrap_or_default()))
        .collect()
}
