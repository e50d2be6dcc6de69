//! The daemon as a process: what it starts with, what it refuses, how it ends, and what `ctr` reads of it.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{fs, path::Path};

use kevel_e2e::{Node, NodeOptions, run};

fn node() -> Node {
    Node::start(&NodeOptions::default()).unwrap()
}

fn keveld() -> std::path::PathBuf {
    let folder = std::env::current_exe().unwrap();
    folder.parent().unwrap().parent().unwrap().join("keveld")
}

#[test]
fn ctr_reads_the_plugin_list() {
    let node = node();
    let list = node.ctr(&["plugins", "ls"]).unwrap();
    for (kind, id) in [
        ("io.containerd.content.v1", "content"),
        ("io.containerd.event.v1", "exchange"),
        ("io.containerd.snapshotter.v1", "overlayfs"),
        ("io.containerd.snapshotter.v1", "native"),
        ("io.containerd.metadata.v1", "bolt"),
        ("io.containerd.gc.v1", "scheduler"),
        ("io.containerd.lease.v1", "manager"),
        ("io.containerd.differ.v1", "walking"),
        ("io.containerd.shim.v1", "manager"),
        ("io.containerd.runtime.v2", "task"),
        ("io.containerd.service.v1", "tasks-service"),
        ("io.containerd.service.v1", "containers-service"),
        ("io.containerd.grpc.v1", "containers"),
        ("io.containerd.grpc.v1", "content"),
        ("io.containerd.grpc.v1", "tasks"),
        ("io.containerd.server.v1", "grpc"),
        ("io.containerd.server.v1", "ttrpc"),
    ] {
        let line = list.lines().find(|line| line.split_whitespace().take(2).eq([kind, id]));
        let line = line.unwrap_or_else(|| panic!("{kind} {id} is not in\n{list}"));
        assert!(line.trim_end().ends_with("ok"), "{line}");
    }
    let filtered = node.ctr(&["plugins", "ls", "type==io.containerd.snapshotter.v1"]).unwrap();
    assert_eq!(filtered.lines().count(), 3, "{filtered}");
    assert!(node.ctr(&["version"]).unwrap().contains("Server:"));
}

#[test]
fn namespaces_come_and_go() {
    let node = node();
    node.ctr(&["namespaces", "create", "team", "zone=eu"]).unwrap();
    assert!(node.ctr(&["namespaces", "ls"]).unwrap().contains("zone=eu"));
    node.ctr(&["namespaces", "label", "team", "zone=us"]).unwrap();
    assert!(node.ctr(&["namespaces", "ls"]).unwrap().contains("zone=us"));
    assert!(
        node.ctr(&["namespaces", "create", "team"]).unwrap_err().root_cause().to_string().contains("already exists")
    );
    node.ctr(&["namespaces", "rm", "team"]).unwrap();
    assert!(!node.ctr(&["namespaces", "ls"]).unwrap().contains("team"));
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut node = node();
    for number in 0..20 {
        node.ctr(&["namespaces", "create", &format!("n{number}")]).unwrap();
    }
    node.kill().unwrap();
    node.launch().unwrap();
    let list = node.ctr(&["namespaces", "ls", "-q"]).unwrap();
    for number in 0..20 {
        assert!(list.lines().any(|line| line == format!("n{number}")), "{list}");
    }
}

#[test]
fn sigterm_ends_it_and_sighup_does_not() {
    let mut node = node();
    let pid = node.pid().unwrap().to_string();
    run(Path::new("/bin/kill"), &["-HUP", &pid]).unwrap().ok().unwrap();
    node.ctr(&["version"]).unwrap();
    assert_eq!(node.stop().unwrap(), 0);
    assert!(!node.socket().exists());
    assert!(node.log().contains("SIGHUP is ignored"), "{}", node.log());
    node.assert_no_leaks().unwrap();
}

#[test]
fn a_second_daemon_does_not_take_the_socket() {
    let node = node();
    let config = node.path("config.toml");
    let second = run(&keveld(), &["--config", config.to_str().unwrap()]).unwrap();
    assert_ne!(second.code, 0);
    node.ctr(&["version"]).unwrap();
}

#[test]
fn wrong_configurations_refuse_to_start_and_say_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let root = dir.path().display();
    let check = |text: &str, want: &str| {
        let text = format!("version = 4\nroot = \"{root}/r\"\nstate = \"{root}/s\"\n{text}");
        fs::write(&file, text.as_bytes()).unwrap();
        let said = run(&keveld(), &["--config", file.to_str().unwrap()]).unwrap();
        assert_eq!(said.code, 1, "{text}\n{}", said.stderr);
        assert!(said.stderr.contains(want), "{text}\nwanted {want}, got {}", said.stderr);
        assert!(!dir.path().join("r").exists(), "{text}: the root directory was made");
    };
    check("oom_score = \"much\"", "oom_score");
    check("[debug]\nlevel = \"loud\"", "debug.level: \"loud\"");
    check("[debug]\nformat = \"xml\"", "debug.format: \"xml\"");
    check("[proxy_plugins.x]\ntype = \"sandwich\"\naddress = \"/x.sock\"", "proxy_plugins.x");
    check("[proxy_plugins.x]\ntype = \"snapshot\"", "proxy_plugins.x");
    check("[plugins.\"io.containerd.server.v1.grpc\"]\nuid = \"root\"", "io.containerd.server.v1.grpc");
    check(
        "[plugins.\"io.containerd.snapshotter.v1.overlayfs\"]\nsync_remove = 3",
        "io.containerd.snapshotter.v1.overlayfs",
    );
    check("[plugins.\"io.containerd.gc.v1.scheduler\"]\nmutation_threshold = \"x\"", "io.containerd.gc.v1.scheduler");
}

#[test]
fn required_and_disabled_plugins_are_honoured() {
    let options = NodeOptions { config: String::new(), ..NodeOptions::default() };
    let mut node = Node::start(&options).unwrap();
    node.stop().unwrap();
    let file = node.path("config.toml");
    let base = fs::read_to_string(&file).unwrap();
    let change =
        |line: &str| fs::write(&file, base.replacen("version = 4\n", &format!("version = 4\n{line}\n"), 1)).unwrap();
    change("required_plugins = [\"io.containerd.snapshotter.v1.zfs\"]");
    assert!(format!("{:#}", node.launch().unwrap_err()).contains("io.containerd.snapshotter.v1.zfs did not start"));
    change("disabled_plugins = [\"overlayfs\"]");
    assert!(format!("{:#}", node.launch().unwrap_err()).contains("disabled_plugins: \"overlayfs\""));
    change("disabled_plugins = [\"io.containerd.snapshotter.v1.native\"]");
    node.launch().unwrap();
    assert!(!node.ctr(&["plugins", "ls"]).unwrap().contains("native"));
}

#[test]
fn configurations_are_shown_and_migrated() {
    let said = run(&keveld(), &["config", "default"]).unwrap().ok().unwrap();
    assert!(said.contains("version = 4") && said.contains("io.containerd.snapshotter.v1.overlayfs"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("old.toml");
    fs::write(&file, "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"a/b:c\"\n").unwrap();
    let migrated = run(&keveld(), &["--config", file.to_str().unwrap(), "config", "migrate"]).unwrap().ok().unwrap();
    assert!(migrated.contains("[plugins.\"io.containerd.cri.v1.images\".pinned_images]"), "{migrated}");
    let dumped = run(&keveld(), &["--config", file.to_str().unwrap(), "config", "dump"]).unwrap().ok().unwrap();
    assert!(dumped.contains("a/b:c"), "{dumped}");
}

#[test]
fn metrics_are_served_where_they_are_configured() {
    // A free port: bound once, then released for the daemon.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!("[plugins.\"io.containerd.server.v1.metrics\"]\naddress = \"127.0.0.1:{port}\"\n");
    let node = Node::start(&NodeOptions { config, ..NodeOptions::default() }).unwrap();
    node.ctr(&["namespaces", "ls"]).unwrap();
    let url = format!("http://127.0.0.1:{port}/v1/metrics");
    let text = run(&kevel_e2e::find("curl").unwrap(), &["-sf", &url]).unwrap().ok().unwrap();
    for name in ["containerd_build_info_total", "kevel_call_seconds_count", "grpc_server_started_total"] {
        assert!(text.contains(name), "{name} is not in\n{text}");
    }
}
