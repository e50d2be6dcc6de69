//! The chart on the real API server: installed and upgraded by helm, its RuntimeClasses used by pods, and every object that it
//! can render taken by the server.

use std::{fs, path::Path};

use kevel_e2e::{Cluster, find, until};
use serde_json::Value;

use crate::{processes, ready};

fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/kevel").display().to_string()
}

fn helm(cluster: &Cluster, arguments: &[&str]) -> String {
    cluster.run(find("helm").unwrap().to_str().unwrap(), arguments).unwrap()
}

/// What there is of a kind in the chart's namespace.
fn names(cluster: &Cluster, kind: &str) -> String {
    cluster.kubectl(&["get", kind, "-n", "kevel-system", "-o", "name"]).unwrap()
}

/// A cluster without the Prometheus operator gets everything but its objects, and is told; they come when it has them.
pub(crate) fn install(cluster: &Cluster) {
    let values = cluster.path("chart-values.yaml");
    fs::write(&values, cluster.manifest("chart-values.yaml").unwrap()).unwrap();
    let (chart, values) = (chart(), values.display().to_string());
    let place = ["-n", "kevel-system", "--create-namespace", "--values", &values];
    let notes = helm(cluster, &[&["install", "kevel", &chart], &place[..]].concat());
    assert!(notes.contains("ServiceMonitor and PrometheusRule are left out"), "{notes}");
    let objects = names(cluster, "daemonset,configmap,service,serviceaccount");
    for object in ["daemonset.apps/kevel", "configmap/kevel", "configmap/kevel-dashboard", "service/kevel"] {
        assert!(objects.lines().any(|line| line == object), "{object}: {objects}");
    }
    cluster.apply("monitoring.yaml").unwrap();
    let crds = ["crd/servicemonitors.monitoring.coreos.com", "crd/prometheusrules.monitoring.coreos.com"];
    cluster.kubectl(&[&["wait", "--for=condition=Established"], &crds[..]].concat()).unwrap();
    let notes = helm(cluster, &[&["upgrade", "kevel", &chart], &place[..]].concat());
    assert!(!notes.contains("left out"), "{notes}");
    let said = names(cluster, "servicemonitor,prometheusrule");
    let (monitor, rule) = ("servicemonitor.monitoring.coreos.com/kevel", "prometheusrule.monitoring.coreos.com/kevel");
    assert_eq!(said.lines().collect::<Vec<_>>(), [monitor, rule]);
}

/// Pods of the chart's classes run by the handlers of that name; a handler that the node lacks is named in the pod's event.
pub(crate) fn classes(cluster: &Cluster) {
    cluster.kubectl(&["label", "node", "node-1", "kevel.test/handler=second"]).unwrap();
    cluster.apply("classes.yaml").unwrap();
    cluster.until_pod("first", "to be ready", ready).unwrap();
    let second = cluster.until_pod("second", "to be ready", ready).unwrap();
    assert_eq!(second["spec"]["overhead"]["memory"], "8Mi");
    assert_eq!(second["spec"]["nodeSelector"]["kevel.test/handler"], "second");
    // Only the second handler's sandboxes have this shim; for a moment, what it begins for runc has its name, too.
    let shims = || processes(cluster, "containerd-shim-runc-v2-rs");
    until("one shim of the second handler's", || (shims() == 1).then_some(())).unwrap();
    assert_eq!(cluster.kubectl(&["exec", "second", "--", "echo", "here"]).unwrap(), "here\n");
    until("the event of an unknown handler", || {
        let events = cluster.events("unknown").ok()?;
        let clear = |event: &String| {
            event.starts_with("FailedCreatePodSandBox: ") && event.contains("\"unknown\" is not configured")
        };
        events.iter().any(clear).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}", cluster.events("unknown")));
    cluster.kubectl(&["delete", "pod", "first", "second", "unknown", "--wait"]).unwrap();
    until("the second handler's shim to end", || (shims() == 0).then_some(())).unwrap();
    helm(cluster, &["uninstall", "kevel", "-n", "kevel-system"]);
    assert_eq!(cluster.kubectl(&["get", "runtimeclass", "-o", "name"]).unwrap(), "runtimeclass.node.k8s.io/unknown\n");
}

/// The chart with everything on, rendered as for GitOps and applied by the server; it refuses what it does not know.
pub(crate) fn everything(cluster: &Cluster) {
    let (chart, full) = (chart(), format!("{}/ci/full-values.yaml", chart()));
    let render: &[&str] = &["template", "full", &chart, "-n", "kevel-system", "--values", &full];
    let server = ["--kube-version", "1.36.3", "--api-versions", "monitoring.coreos.com/v1"];
    let rendered = helm(cluster, &[render, &server].concat());
    let file = cluster.path("full.yaml");
    fs::write(&file, &rendered).unwrap();
    let file = ["-n", "kevel-system", "-f", file.to_str().unwrap()];
    cluster.kubectl(&[&["apply", "--server-side", "--validate=strict"], &file[..]].concat()).unwrap();
    let said = cluster.kubectl(&[&["get", "-o", "json"], &file[..]].concat()).unwrap();
    let objects: Value = serde_json::from_str(&said).unwrap();
    let mut kinds: Vec<_> =
        objects["items"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), rendered.matches("\nkind: ").count());
    kinds.sort_unstable();
    kinds.dedup();
    let all =
        ["ConfigMap", "DaemonSet", "PrometheusRule", "RuntimeClass", "Service", "ServiceAccount", "ServiceMonitor"];
    assert_eq!(kinds, all);
    cluster.kubectl(&[&["delete"], &file[..]].concat()).unwrap();
}
