//! A real kubelet and API server on the daemon, driven by kubectl and helm: what users of a cluster do with pods.
//!
//! One cluster serves most steps, since starting it costs more than they do. `KEVEL_SOAK=1` (`hack/test soak`) has the steps
//! that say so do more, over minutes.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

mod app;
mod chart;
mod eviction;
mod logs;
mod pods;
mod reboot;
mod standalone;

use kevel_e2e::{Cluster, ClusterOptions, Leaks};
use serde_json::Value;

/// A second handler beside the default one, for a RuntimeClass to pick: another shim.
const SECOND: &str = r#"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.second]
runtime_type = "io.containerd.runc.v2-rs"
"#;

#[test]
fn pods_of_a_cluster() {
    let cluster = Cluster::start(ClusterOptions { config: SECOND, ..ClusterOptions::default() }).unwrap();
    let mark = cluster.mark();
    app::run(&cluster);
    pods::events_are_used(&cluster);
    app::reach(&cluster);
    app::change(&cluster);
    pods::streams(&cluster);
    pods::restarts(&cluster);
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

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = all.iter().filter_map(|key| pod["status"][key].as_array()).flatten();
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

/// The containers of a pod and how often they were started anew.
fn identity(pod: &Value) -> Vec<(String, String, u64)> {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    statuses
        .map(|one| (text(&one["name"]), text(&one["containerID"]), one["restartCount"].as_u64().unwrap_or_default()))
        .collect()
}
