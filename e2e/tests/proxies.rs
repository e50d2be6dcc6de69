//! Proxy plugins of other people's making: snapshotters on containerd's Go packages, on nydus-snapshotter and on a Rust crate,
//! and what becomes of everybody else when one of them dies or stops to answer.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kevel_e2e::{Background, Node, NodeOptions, Pods, Registry, ctr, find, until};

/// What a call to the proxies of these tests may take, in seconds.
const LIMIT: u64 = 8;

/// The configuration of a proxy snapshotter and of a handler of its name.
fn proxy(name: &str, socket: &Path) -> String {
    format!(
        r#"
[proxy_plugins.{name}]
type = "snapshot"
address = "{socket}"
timeout_secs = {LIMIT}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
snapshotter = "{name}"
"#,
        socket = socket.display(),
    )
}

struct Backends {
    go: Background,
    _nydus: Background,
    _rust: Background,
}

/// A node with every foreign snapshotter as a proxy plugin.
fn node(registry: &Registry) -> (Node, Backends) {
    let dir = Node::directory().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    let start =
        |name: &str, arguments: &[&str], socket: &str| Background::start(name, arguments, &path(socket)).unwrap();
    let (go, nydus, rust) = (text("go.sock"), text("nydus.sock"), text("rust.sock"));
    let nydus_flags = ["--fs-driver", "nodev", "--daemon-mode", "none", "--log-to-stdout"];
    let backends = Backends {
        go: start("snapshotter", &["-root", &text("go"), "-path", &go], "go.sock"),
        _nydus: start(
            "containerd-nydus-grpc",
            &[&["--root", &text("nydus"), "--address", &nydus], &nydus_flags[..]].concat(),
            "nydus.sock",
        ),
        _rust: start("kevel-test-snapshotter", &[&text("rust"), &rust], "rust.sock"),
    };
    let config = ["go", "nydus", "rust"].map(|name| proxy(name, &path(&format!("{name}.sock"))));
    let options = NodeOptions {
        config: config.concat(),
        hosts_dir: registry.hosts_dir().to_owned(),
        sandbox_image: registry.reference("pause").to_owned(),
        ..NodeOptions::default()
    };
    (Node::start_in(dir, &options).unwrap(), backends)
}

fn snapshots(node: &Node, snapshotter: &str) -> String {
    node.ctr(&["-n", "k8s.io", "snapshots", "--snapshotter", snapshotter, "ls"]).unwrap()
}

/// Starts a pull through the transfer service into the Go snapshotter.
fn begin_pull(node: &Node, registry: &Registry, namespace: &str) -> Child {
    Command::new(find("ctr").unwrap())
        .arg("--address")
        .arg(node.socket())
        .args(["-n", namespace, "images", "pull", "--snapshotter", "go", "--hosts-dir", registry.hosts_dir()])
        .arg(registry.reference("layers"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until a pull has brought content, which is when it turns to the snapshotter.
fn under_way(node: &Node, namespace: &str) {
    until("the pull to be under way", || {
        let found = ctr(&node.socket(), &["-n", namespace, "content", "ls", "-q"]).ok()?.ok().ok()?;
        (found.lines().count() >= 2).then_some(())
    })
    .unwrap();
}

/// Waits for a pull that must fail; answers what it said.
fn failure(pull: Child) -> String {
    let output = pull.wait_with_output().unwrap();
    assert!(!output.status.success(), "the pull succeeded: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_snapshotters_serve_pods_and_pulls() {
    let registry = Registry::start(&["busybox", "pause", "layers"]).unwrap();
    let (node, _backends) = node(&registry);
    let plugins = node.ctr(&["plugins", "ls"]).unwrap();
    let mut pods = Pods::of(&node, registry.reference("busybox")).await.unwrap();
    for name in ["go", "nydus", "rust"] {
        let listed =
            plugins.lines().find(|line| line.contains("snapshotter.v1") && line.contains(&format!(" {name} ")));
        assert!(listed.is_some_and(|line| line.trim_end().ends_with("ok")), "{name} in {plugins}");

        // A pod by the handler of that name.
        pods.pull(name).await.unwrap();
        let pod = pods.run(name, name).await.unwrap();
        let container = pods.start((&pod, name), "one", "echo kept > /file; exec sleep 1000").await.unwrap();
        assert_eq!(pods.exec(&container, "until cat /file; do sleep 0.1; done").await.unwrap(), "kept\n", "{name}");
        let list = snapshots(&node, name);
        assert!(list.contains(&container) && list.contains(&pod), "{name}: {list}");
        pods.remove(&pod).await.unwrap();
        let list = snapshots(&node, name);
        assert!(!list.contains("Active"), "{name}: {list}");

        // An image of several layers, by both ways of pulling, and a container of it.
        let reference = registry.reference("layers");
        for local in [&["--local"][..], &[]] {
            let pull =
                [&["images", "pull", "--snapshotter", name, "--hosts-dir", registry.hosts_dir()], local].concat();
            node.ctr(&[&pull[..], &[reference]].concat()).unwrap();
            // runc knows containers of every daemon on the machine, by namespace and id.
            let (group, id) = (format!("/{}", node.mark()), format!("once-{}", node.mark()));
            let run = ["run", "--rm", "--snapshotter", name, "--cgroup", &group, reference, &id, "cat", "/data/kept"];
            assert_eq!(node.ctr(&run).unwrap(), "1", "{name}");
            node.ctr(&["images", "rm", "--sync", reference]).unwrap();
            let left = node.ctr(&["snapshots", "--snapshotter", name, "ls"]).unwrap();
            assert_eq!(left.lines().count(), 1, "{name}: {left}");
        }
    }
    node.remove_parent_cgroup();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_or_frozen_backend_breaks_its_own_pulls_alone() {
    let registry = Registry::start(&["busybox", "pause", "layers", "layers-zstd"]).unwrap();
    let (node, mut backends) = node(&registry);
    let mut pods = Pods::of(&node, registry.reference("busybox")).await.unwrap();
    pods.pull("").await.unwrap();

    // Frozen: the pull waits for its deadline, and nobody else for anything.
    backends.go.freeze().unwrap();
    let begun = Instant::now();
    let pull = begin_pull(&node, &registry, "first");
    under_way(&node, "first");
    let pod = pods.run("others", "").await.unwrap();
    let container = pods.start((&pod, "others"), "one", "exec sleep 1000").await.unwrap();
    assert_eq!(pods.exec(&container, "echo well").await.unwrap(), "well\n");
    let hosts = registry.hosts_dir();
    let other = registry.reference("layers-zstd");
    node.ctr(&["images", "pull", "--snapshotter", "rust", "--hosts-dir", hosts, other]).unwrap();
    let said = failure(pull);
    let limit = format!("snapshotter go did not answer prepare within {LIMIT}s");
    assert!(said.contains(&limit), "{said}");
    assert!(begun.elapsed() >= Duration::from_secs(LIMIT));
    backends.go.thaw().unwrap();
    let reference = registry.reference("layers");
    let again = ["images", "pull", "--snapshotter", "go", "--hosts-dir", hosts, reference];
    node.ctr(&[&["-n", "first"], &again[..]].concat()).unwrap();

    // Killed in the middle of a pull: that pull fails at once and says whose fault it is.
    backends.go.freeze().unwrap();
    let begun = Instant::now();
    let pull = begin_pull(&node, &registry, "second");
    under_way(&node, "second");
    backends.go.kill().unwrap();
    let said = failure(pull);
    assert!(said.contains("snapshotter go"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(LIMIT), "took {:?}", begun.elapsed());
    node.ctr(&["images", "pull", "--hosts-dir", hosts, other]).unwrap();
    assert_eq!(pods.exec(&container, "echo well").await.unwrap(), "well\n");
    let refused = pods.run("dead", "go").await.unwrap_err();
    assert!(refused.message().contains("snapshotter go"), "{refused}");

    // Back again: a retry works.
    backends.go.launch().unwrap();
    node.ctr(&again).unwrap();
    let served = pods.run("back", "go").await.unwrap();
    for pod in [&served, &pod] {
        pods.remove(pod).await.unwrap();
    }
    node.remove_parent_cgroup();
}
