//! Smaller pods: their streams, restart policies and probes, graceful ends, static pods, and the events that kubelet lives on.

use std::{fmt::Write as _, fs};

use kevel_e2e::{Cluster, until};
use serde_json::Value;

use crate::{container, ready};

/// attach with something to read, and logs followed from the beginning to the end.
pub(crate) fn streams(cluster: &Cluster) {
    cluster.apply("echo.yaml").unwrap();
    cluster.until_pod("echo", "to be ready", ready).unwrap();
    let said = cluster.kubectl_fed(&["attach", "-i", "-q", "echo"], "one\ntwo\n").unwrap();
    assert_eq!(said, "got one\ngot two\nno more\n");
    cluster.until_pod("echo", "to succeed", |pod| pod["status"]["phase"] == "Succeeded").unwrap();
    assert_eq!(cluster.kubectl(&["logs", "echo"]).unwrap(), said);

    let running = |pod: &Value| container(pod, "main")["state"]["running"].is_object();
    cluster.apply("talker.yaml").unwrap();
    cluster.until_pod("talker", "to run", running).unwrap();
    let mut all = String::new();
    (1..=1500).for_each(|n| writeln!(all, "line {n}").unwrap());
    assert_eq!(cluster.kubectl(&["logs", "-f", "talker"]).unwrap(), all);
    cluster.kubectl(&["delete", "pod", "echo", "talker", "--wait"]).unwrap();
}

pub(crate) fn restarts(cluster: &Cluster) {
    cluster.apply("restarts.yaml").unwrap();
    let once = cluster.until_pod("once", "to fail", |pod| pod["status"]["phase"] == "Failed").unwrap();
    assert_eq!(container(&once, "main")["state"]["terminated"]["exitCode"], 3);
    assert_eq!(cluster.kubectl(&["logs", "once"]).unwrap(), "once\n");
    let again = cluster.until_pod("again", "to succeed", |pod| pod["status"]["phase"] == "Succeeded").unwrap();
    assert_eq!(container(&again, "main")["restartCount"], 1);
    // Twice: kubelet has to see the second container of that name as the one that counts.
    let restarted = |times| move |pod: &Value| container(pod, "main")["restartCount"].as_u64() >= Some(times);
    cluster.until_pod("sick", "to be restarted", restarted(2)).unwrap();
    for probe in ["grpc", "http", "tcp"] {
        cluster.until_pod(&format!("sick-{probe}"), "to be restarted", restarted(1)).unwrap();
    }
    cluster.until_pod("stubborn", "to be ready", ready).unwrap();
    let all = ["once", "again", "sick", "sick-grpc", "sick-http", "sick-tcp", "stubborn"];
    cluster.kubectl(&[&["delete", "pod", "--wait"], &all[..]].concat()).unwrap();
    assert_eq!(fs::read_to_string(cluster.path("host/stubborn")).unwrap(), "told\n");
}

pub(crate) fn static_pod(cluster: &Cluster) {
    fs::write(cluster.path("static/static.yaml"), cluster.manifest("static.yaml").unwrap()).unwrap();
    cluster.until_pod("static-node-1", "to be ready", ready).unwrap();
}

/// Evented PLEG is on, and kubelet lives on the daemon's events. To be asked before the daemon is restarted: kubelet gives up
/// on events when it finds nobody five times in a row.
pub(crate) fn events_are_used(cluster: &Cluster) {
    let metrics = cluster.kubectl(&["get", "--raw", "/api/v1/nodes/node-1/proxy/metrics"]).unwrap();
    let value = |name: &str| {
        let line =
            metrics.lines().find(|line| line.starts_with(&format!("kubelet_evented_pleg_connection_{name} ")))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let seen = ["success_count", "error_count", "latency_seconds_count"].map(value);
    assert!(seen[0] == Some(1.0) && seen[1] == Some(0.0) && seen[2] > Some(5.0), "{seen:?}");
}

/// The static pod leaves when its file does.
pub(crate) fn static_pod_ends(cluster: &Cluster) {
    fs::remove_file(cluster.path("static/static.yaml")).unwrap();
    until("the static pod to go", || {
        cluster.try_kubectl(&["get", "pod", "static-node-1"]).ok().filter(|said| said.code != 0)
    })
    .unwrap();
}
