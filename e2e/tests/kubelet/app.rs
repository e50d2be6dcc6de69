//! One pod with most of what a pod can have: its start, what users do with it, changes, and its end.

use std::fs;

use kevel_e2e::{Cluster, find, until};

use crate::{container, ready};

/// Init containers, sidecars, probes, volumes, hooks, host ports and DNS.
pub(crate) fn run(cluster: &Cluster) {
    fs::create_dir(cluster.path("host")).unwrap();
    fs::copy(find("health").unwrap(), cluster.path("host/health")).unwrap();
    cluster.apply("app.yaml").unwrap();
    let pod = cluster.until_pod("app", "to be ready", ready).unwrap();
    assert_eq!(container(&pod, "prepare")["state"]["terminated"]["exitCode"], 0);
    assert_eq!(container(&pod, "sidecar")["started"], true);
    assert_eq!(web(cluster, "cat /work/index.html"), "hello");
    assert_eq!(web(cluster, "cat /work/hook"), "started\n");
    assert_eq!(web(cluster, "echo $TOKEN"), "s3cret\n");
    assert_eq!(web(cluster, "echo $POD_IP").trim(), pod["status"]["podIP"].as_str().unwrap());
    assert_eq!(web(cluster, "cat /projected/labels"), "app=\"app\"");
    assert_eq!(web(cluster, "cut -d. -f1 /projected/token | base64 -d 2>/dev/null | grep -c RS256"), "1\n");
    assert_eq!(web(cluster, "grep ' /memory ' /proc/mounts | cut -d' ' -f1"), "tmpfs\n");
    assert_eq!(web(cluster, "cmp /image/bin/busybox /bin/busybox && grep -c ^kevel: /users/passwd"), "1\n");
    assert_eq!(web(cluster, "touch /image/new /users/new 2>/dev/null || ls /image/new /users/new 2>/dev/null"), "");
    let dns = web(cluster, "cat /etc/resolv.conf");
    assert!(
        ["nameserver 192.0.2.53", "search kevel.test", "options ndots:3"].iter().all(|line| dns.contains(line)),
        "{dns}"
    );
    // The port of the node, from the node and by its address.
    assert_eq!(cluster.run("curl", &["-sS", "http://10.231.0.1:18080/index.html"]).unwrap(), "hello");
}

fn web(cluster: &Cluster, script: &str) -> String {
    let arguments = ["exec", "app", "-c", "web", "--", "sh", "-c"];
    let said = cluster.try_kubectl(&[&arguments[..], &[script]].concat()).unwrap();
    if said.code != 0 && said.stdout.is_empty() {
        return String::new();
    }
    said.stdout
}

/// exec, cp and port-forward.
pub(crate) fn reach(cluster: &Cluster) {
    let failed = cluster.try_kubectl(&["exec", "app", "-c", "web", "--", "sh", "-c", "echo no >&2; exit 7"]).unwrap();
    assert_eq!(failed.code, 7, "{failed:?}");
    assert!(failed.stderr.contains("no\n"), "{failed:?}");
    let cat = ["exec", "-i", "app", "-c", "web", "--", "wc", "-c"];
    assert_eq!(cluster.kubectl_fed(&cat, &"x".repeat(1 << 20)).unwrap(), "1048576\n");
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

/// An ephemeral debug container in another's process namespace, and resources changed in place.
pub(crate) fn change(cluster: &Cluster) {
    let image = cluster.image("busybox");
    let debug = ["debug", "app", "--image", image, "-c", "debugger", "--target=web", "--profile=general"];
    cluster.kubectl(&[&debug[..], &["--", "sleep", "1000"]].concat()).unwrap();
    cluster
        .until_pod("app", "to have a debug container", |pod| container(pod, "debugger")["state"]["running"].is_object())
        .unwrap();
    let seen = cluster.kubectl(&["exec", "app", "-c", "debugger", "--", "ps"]).unwrap();
    assert!(seen.contains("httpd -f -p 8080"), "{seen}");

    let patch = r#"{"spec":{"containers":[{"name":"web","resources":{
        "requests":{"cpu":"30m","memory":"24Mi"},"limits":{"cpu":"300m","memory":"96Mi"}}}]}}"#;
    cluster.kubectl(&["patch", "pod", "app", "--subresource", "resize", "--patch", patch]).unwrap();
    let resized = cluster.until_pod("app", "to be resized", |pod| {
        let limits = &container(pod, "web")["resources"]["limits"];
        limits["cpu"] == "300m" && limits["memory"] == "96Mi"
    });
    assert_eq!(container(&resized.unwrap(), "web")["restartCount"], 0);
    // What the kernel has: in a hierarchy of version 1, or in one of version 2.
    let limits = "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes 2>/dev/null || cat cpu.max memory.max";
    let limits = web(cluster, limits);
    assert!(["30000\n100663296\n", "30000 100000\n100663296\n"].contains(&limits.as_str()), "{limits}");
}

/// A pod ends in order: the hook runs, then the container is told, then the sidecar.
pub(crate) fn end(cluster: &Cluster) {
    cluster.kubectl(&["delete", "pod", "app", "--wait"]).unwrap();
    assert_eq!(fs::read_to_string(cluster.path("host/order")).unwrap(), "hook\nsignal\nsidecar\n");
    until("the host port to be free", || {
        cluster.run("curl", &["-sS", "http://10.231.0.1:18080/index.html"]).is_err().then_some(())
    })
    .unwrap();
}
