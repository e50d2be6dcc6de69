//! A real kubelet and API server on the daemon, driven by kubectl: what users of a cluster do with pods.
//!
//! One cluster serves all steps, since starting it costs more than they do.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{fs, path::Path};

use kevel_e2e::{Cluster, Leaks, until};
use serde_json::Value;

/// A second handler beside the default one, for a RuntimeClass to pick.
const SECOND: &str = r#"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.second]
runtime_type = "io.containerd.runc.v2"
"#;

#[test]
fn pods_of_a_cluster() {
    let cluster = Cluster::start(SECOND).unwrap();
    let mark = cluster.path("").parent().unwrap().join(cluster.path("").file_name().unwrap());
    app(&cluster);
    reach_into_pods(&cluster);
    change_pods(&cluster);
    restarts(&cluster);
    classes(&cluster);
    static_pod(&cluster);
    logs_survive_restarts(&cluster);
    end(&cluster);
    drop(cluster);
    assert!(
        Leaks::of(mark.file_name().unwrap().to_str().unwrap()).is_empty(),
        "{:#?}",
        Leaks::of(mark.to_str().unwrap())
    );
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

/// Init containers, sidecars, probes, volumes, hooks, host ports and DNS.
fn app(cluster: &Cluster) {
    cluster.apply("app.yaml").unwrap();
    let pod = cluster.until_pod("app", "to be ready", ready).unwrap();
    assert_eq!(container(&pod, "prepare")["state"]["terminated"]["exitCode"], 0);
    assert_eq!(container(&pod, "sidecar")["started"], true);
    let web = |script: &str| cluster.kubectl(&["exec", "app", "-c", "web", "--", "sh", "-c", script]).unwrap();
    assert_eq!(web("cat /work/index.html"), "hello");
    assert_eq!(web("cat /work/hook"), "started\n");
    assert_eq!(web("echo $TOKEN"), "s3cret\n");
    assert_eq!(web("echo $POD_IP").trim(), pod["status"]["podIP"].as_str().unwrap());
    assert_eq!(web("cat /projected/labels"), "app=\"app\"");
    assert_eq!(web("cut -d. -f1 /projected/token | base64 -d 2>/dev/null | grep -c RS256"), "1\n");
    assert_eq!(web("grep ' /memory ' /proc/mounts | cut -d' ' -f1"), "tmpfs\n");
    let dns = web("cat /etc/resolv.conf");
    assert!(
        ["nameserver 192.0.2.53", "search kevel.test", "options ndots:3"].iter().all(|line| dns.contains(line)),
        "{dns}"
    );
}

/// logs, exec, attach, port-forward and cp.
fn reach_into_pods(cluster: &Cluster) {
    let failed = cluster.try_kubectl(&["exec", "app", "-c", "web", "--", "sh", "-c", "echo no >&2; exit 7"]).unwrap();
    assert_eq!(failed.code, 7, "{failed:?}");
    assert!(failed.stderr.contains("no\n"), "{failed:?}");
    let file = cluster.path("copied");
    fs::write(&file, vec![b'x'; 3 << 20]).unwrap();
    cluster.kubectl(&["cp", "-c", "web", file.to_str().unwrap(), "app:/memory/copied"]).unwrap();
    assert_eq!(
        cluster.kubectl(&["exec", "app", "-c", "web", "--", "wc", "-c", "/memory/copied"]).unwrap(),
        "3145728 /memory/copied\n"
    );
    let back = cluster.path("back");
    cluster.kubectl(&["cp", "-c", "web", "app:/memory/copied", back.to_str().unwrap()]).unwrap();
    assert_eq!(fs::read(&back).unwrap(), fs::read(&file).unwrap());
    assert_eq!(cluster.forwarded("pod/app", 8080, "/index.html").unwrap(), "hello");
}

/// An ephemeral debug container, and resources changed in place.
fn change_pods(cluster: &Cluster) {
    let image = cluster.image();
    cluster
        .kubectl(&["debug", "app", "--image", image, "-c", "debugger", "--profile=general", "--", "sleep", "1000"])
        .unwrap();
    cluster
        .until_pod("app", "to have a debug container", |pod| container(pod, "debugger")["state"]["running"].is_object())
        .unwrap();
    let patch =
        r#"{"spec":{"containers":[{"name":"web","resources":{"requests":{"cpu":"30m"},"limits":{"cpu":"300m"}}}]}}"#;
    cluster.kubectl(&["patch", "pod", "app", "--subresource", "resize", "--patch", patch]).unwrap();
    let resized =
        cluster.until_pod("app", "to be resized", |pod| container(pod, "web")["resources"]["limits"]["cpu"] == "300m");
    assert_eq!(container(&resized.unwrap(), "web")["restartCount"], 0);
}

fn restarts(cluster: &Cluster) {
    cluster.apply("restarts.yaml").unwrap();
    let once = cluster.until_pod("once", "to fail", |pod| pod["status"]["phase"] == "Failed").unwrap();
    assert_eq!(container(&once, "main")["state"]["terminated"]["exitCode"], 3);
    assert_eq!(cluster.kubectl(&["logs", "once"]).unwrap(), "once\n");
    let again = cluster.until_pod("again", "to succeed", |pod| pod["status"]["phase"] == "Succeeded").unwrap();
    assert_eq!(container(&again, "main")["restartCount"], 1);
    // Twice: kubelet has to see the second container of that name as the one that counts.
    cluster
        .until_pod("sick", "to be restarted", |pod| container(pod, "main")["restartCount"].as_u64() > Some(1))
        .unwrap();
    cluster.kubectl(&["delete", "pod", "once", "again", "sick", "--wait"]).unwrap();
}

fn classes(cluster: &Cluster) {
    cluster.apply("classes.yaml").unwrap();
    cluster.until_pod("second", "to be ready", ready).unwrap();
    let told = until("the event of an unknown handler", || {
        let events = cluster.kubectl(&["get", "events", "-o", "json"]).ok()?;
        events.contains("\\\"unknown\\\" is not configured").then_some(events)
    });
    told.unwrap();
    cluster.kubectl(&["delete", "pod", "second", "unknown", "--wait"]).unwrap();
}

fn static_pod(cluster: &Cluster) {
    let file = cluster.path("static/static.yaml");
    fs::write(&file, cluster.manifest("static.yaml").unwrap()).unwrap();
    cluster.until_pod("static-node-1", "to be ready", ready).unwrap();
    fs::remove_file(file).unwrap();
    until("the static pod to go", || {
        cluster.try_kubectl(&["get", "pod", "static-node-1"]).ok().filter(|said| said.code != 0)
    })
    .unwrap();
}

/// kubelet and the daemon are restarted while a container counts aloud: it goes on, and no line is lost over rotations.
fn logs_survive_restarts(cluster: &Cluster) {
    cluster.apply("counter.yaml").unwrap();
    cluster.until_pod("counter", "to be ready", ready).unwrap();
    cluster.again("restart", "kubelet").unwrap();
    cluster.again("restart", "keveld").unwrap();
    cluster.again("kill", "keveld").unwrap();
    let before = numbers(&cluster.path("pods")).last().copied().unwrap_or_default();
    until("the counter to go on", || (numbers(&cluster.path("pods")).last().copied()? > before + 200).then_some(()))
        .unwrap();
    let pod = cluster.until_pod("counter", "to be ready again", ready).unwrap();
    assert_eq!(container(&pod, "main")["restartCount"], 0);
    let pod = cluster.until_pod("app", "to be ready again", ready).unwrap();
    assert_eq!(container(&pod, "web")["restartCount"], 0);
    let numbers = numbers(&cluster.path("pods"));
    let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!((numbers.first(), gap), (Some(&1), None));
    cluster.kubectl(&["delete", "pod", "counter", "--wait"]).unwrap();
}

/// What the counter said, over all files of its log.
fn numbers(pods: &Path) -> Vec<u64> {
    let folders = fs::read_dir(pods).unwrap().flatten().map(|entry| entry.path());
    let Some(folder) = folders.into_iter().find(|path| path.to_string_lossy().contains("default_counter_")) else {
        return Vec::new();
    };
    let mut numbers = Vec::new();
    for file in fs::read_dir(folder.join("main")).into_iter().flatten().flatten() {
        let text = if file.path().extension().is_some_and(|end| end == "gz") {
            kevel_e2e::run(Path::new("/bin/zcat"), &[file.path().to_str().unwrap()]).unwrap().stdout
        } else {
            fs::read_to_string(file.path()).unwrap_or_default()
        };
        numbers.extend(text.lines().filter_map(|line| line.rsplit_once(" F line ")?.1.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    numbers
}

/// A pod ends in order: its preStop hook runs, and nothing of it is left.
fn end(cluster: &Cluster) {
    cluster.kubectl(&["delete", "pod", "app", "--wait"]).unwrap();
    assert_eq!(fs::read_to_string(cluster.path("host/stopped")).unwrap(), "stopping\n");
}
