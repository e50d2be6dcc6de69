//! kubelet without an API server: it runs what its folder of static pods has, and answers for itself.

use std::fs;

use kevel_e2e::{Cluster, ClusterOptions, Leaks, until};
use serde_json::Value;

use crate::{container, identity, ready};

/// Static pods start, are kept running, outlive restarts of kubelet and the daemon, and end with their file.
#[test]
fn static_pods_without_an_api_server() {
    let cluster = Cluster::start(ClusterOptions { arguments: &["--standalone"], ..ClusterOptions::default() }).unwrap();
    let mark = cluster.mark();
    let file = cluster.path("static/static.yaml");
    fs::write(&file, cluster.manifest("static.yaml").unwrap()).unwrap();
    let first = until_static(&cluster, "to be ready", ready);
    assert_eq!(kubelet(&cluster, "containerLogs/default/static-node-1/main", &[]), "begun\n");
    let said = kubelet(&cluster, "run/default/static-node-1/main?cmd=hostname", &["-X", "POST"]);
    assert_eq!(said, "static-node-1\n");

    cluster.again("kill", "keveld").unwrap();
    cluster.again("restart", "kubelet").unwrap();
    assert_eq!(identity(&until_static(&cluster, "to be ready again", ready)), identity(&first));

    kubelet(&cluster, "run/default/static-node-1/main?cmd=kill%201", &["-X", "POST"]);
    let restarted =
        until_static(&cluster, "to be started again", |pod| container(pod, "main")["restartCount"] == 1 && ready(pod));
    assert_ne!(identity(&restarted), identity(&first));

    fs::remove_file(file).unwrap();
    until("the pod to go", || pods(&cluster)?.is_empty().then_some(())).unwrap();
    drop(cluster);
    assert!(Leaks::of(&mark).is_empty(), "{:#?}", Leaks::of(&mark));
}

/// What kubelet's own server answers.
fn kubelet(cluster: &Cluster, path: &str, more: &[&str]) -> String {
    let pki = |name: &str| cluster.path(&format!("pki/{name}")).display().to_string();
    let (certificate, key, url) = (pki("admin.crt"), pki("admin.key"), format!("https://10.231.0.1:10250/{path}"));
    // It signs its own certificate.
    let arguments = ["-ksS", "--cert", &certificate, "--key", &key, &url];
    cluster.run("curl", &[&arguments[..], more].concat()).unwrap_or_default()
}

/// The pods that kubelet has, once it answers; none is `null`.
fn pods(cluster: &Cluster) -> Option<Vec<Value>> {
    let list: Value = serde_json::from_str(&kubelet(cluster, "pods", &[])).ok()?;
    (list["kind"] == "PodList").then(|| list["items"].as_array().cloned().unwrap_or_default())
}

fn until_static(cluster: &Cluster, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let found = until(&format!("the static pod {what}"), || {
        pods(cluster)?.into_iter().find(|pod| pod["metadata"]["name"] == "static-node-1" && is(pod))
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {:#?}\n{}", pods(cluster), cluster.log("kubelet")))
}
