//! The daemon as a process: what it starts with, what it refuses, how it ends, and what `ctr` reads of it.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{fs, path::Path};

use kevel_e2e::{Node, NodeOptions, run, until};

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
        ("io.containerd.mount-manager.v1", "bolt"),
        ("io.containerd.differ.v1", "walking"),
        ("io.containerd.shim.v1", "manager"),
        ("io.containerd.runtime.v2", "task"),
        ("io.containerd.service.v1", "tasks-service"),
        ("io.containerd.service.v1", "containers-service"),
        ("io.containerd.grpc.v1", "containers"),
        ("io.containerd.grpc.v1", "content"),
        ("io.containerd.grpc.v1", "mounts"),
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
    let no_sync = "[plugins.\"io.containerd.metadata.v1.bolt\"]\nno_sync = true\n";
    for config in [String::new(), no_sync.to_owned()] {
        survives_a_kill(Node::start(&NodeOptions { config, ..NodeOptions::default() }).unwrap());
    }
}

fn survives_a_kill(mut node: Node) {
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
fn sigterm_ends_it() {
    let mut node = node();
    node.ctr(&["version"]).unwrap();
    assert_eq!(node.stop().unwrap(), 0);
    assert!(!node.socket().exists());
    node.assert_no_leaks().unwrap();
}

/// Sends SIGHUP and answers what the daemon logs until a line has `last` in it.
fn hang_up(node: &Node, last: &str) -> String {
    let before = node.log().len();
    let pid = node.pid().unwrap().to_string();
    run(Path::new("/bin/kill"), &["-HUP", &pid]).unwrap().ok().unwrap();
    let said = || node.log()[before..].to_owned();
    until(last, || said().lines().any(|line| line.contains(last)).then_some(())).unwrap();
    said()
}

#[test]
fn sighup_takes_on_what_changed_and_refuses_what_is_wrong() {
    let mut node = Node::prepare(&NodeOptions::default()).unwrap();
    let file = node.path("config.toml");
    let base = fs::read_to_string(&file).unwrap().replace("level = \"debug\"", "level = \"info\"");
    let write = |text: String| fs::write(&file, text).unwrap();
    write(base.clone());
    node.launch().unwrap();
    let (reloaded, wrong) = ("configuration reloaded", "goes on with the one before");
    assert!(hang_up(&node, reloaded).contains("changed=[]"), "{}", node.log());
    assert!(!node.log().contains("DEBUG"), "{}", node.log());

    // The log level, the collector's thresholds and the handlers change at once; what cannot is named.
    let changed = format!(
        "{}\n[plugins.\"io.containerd.gc.v1.scheduler\"]\nmutation_threshold = 7\n\
         [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.second]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.service.v1.diff-service\"]\nsync_fs = true\n",
        base.replace("version = 4\n", "version = 4\noom_score = 1\n").replace("level = \"info\"", "level = \"debug\"")
    );
    write(changed.clone());
    let said = hang_up(&node, reloaded);
    for want in ["io.containerd.gc.v1.scheduler", "io.containerd.cri.v1.runtime", "waiting=2"] {
        assert!(said.lines().any(|line| line.contains(reloaded) && line.contains(want)), "{want}: {said}");
    }
    for waits in ["io.containerd.service.v1.diff-service", "oom_score"] {
        let line = |line: &str| line.contains(waits) && line.contains("waits for the next start");
        assert!(said.lines().any(line), "{waits}: {said}");
    }

    // Each wrong file is refused as a whole, also what is right in it; the daemon says where and goes on.
    for (text, want) in [
        ("version = ".to_owned(), "not TOML"),
        (changed.replace("level = \"debug\"", "level = \"loud\""), "debug.level: \\\"loud\\\""),
        (changed.replace("mutation_threshold = 7", "mutation_threshold = 7\npause_threshold = 2.0"), "pause_threshold"),
        (changed.replace("sync_fs = true", "sync_fs = 3"), "io.containerd.service.v1.diff-service"),
        (changed.replace("runtimes.second]", "runtimes.second]\nruntime_path = \"x\""), "runtimes.second.runtime_path"),
    ] {
        write(text);
        let said = hang_up(&node, wrong);
        assert!(said.contains(want), "{want}: {said}");
        node.ctr(&["version"]).unwrap();
    }
    write(changed);
    hang_up(&node, reloaded);
    assert_eq!(node.stop().unwrap(), 0);
    let log = node.log();
    assert!(log.lines().any(|line| line.contains("DEBUG") && line.contains("closing plugin")), "{log}");
}

#[test]
fn the_service_manager_is_told_of_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut node = Node::prepare(&NodeOptions::default()).unwrap();
    node.set_env("NOTIFY_SOCKET", &path.display().to_string());
    node.launch().unwrap();
    let told = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert!(told().contains("READY=1"));
    hang_up(&node, "configuration reloaded");
    let reloading = told();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(told().contains("READY=1"));
    node.stop().unwrap();
    assert!(told().contains("STOPPING=1"));
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

#[tokio::test(flavor = "multi_thread")]
async fn cri_is_served_on_the_loopback_when_it_is_configured() {
    use kevel_proto::runtime::v1::{VersionRequest, runtime_service_client::RuntimeServiceClient};
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listener = format!("[plugins.\"io.containerd.server.v1.grpc-tcp\"]\naddress = \"127.0.0.1:{port}\"\n");
    let config = format!("{listener}[plugins.\"io.containerd.grpc.v1.cri\"]\ndisable_tcp_service = false\n");
    let _node = Node::start(&NodeOptions { config, ..NodeOptions::default() }).unwrap();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let channel = channel.connect().await.unwrap();
    let version = RuntimeServiceClient::new(channel.clone()).version(VersionRequest::default()).await.unwrap();
    assert_eq!(version.into_inner().runtime_api_version, "v1");
    // What did not ask for TCP is not there.
    use kevel_proto::containerd::services::version::v1::version_client::VersionClient;
    let absent = VersionClient::new(channel).version(()).await.unwrap_err();
    assert_eq!(absent.code(), tonic::Code::Unimplemented);
}

#[test]
fn a_tcp_listener_that_anybody_could_use_is_refused() {
    let table = |keys: &str| format!("[plugins.\"io.containerd.server.v1.grpc-tcp\"]\n{keys}\n");
    for (keys, want) in [
        ("address = \"0.0.0.0:0\"", "address: whoever reaches 0.0.0.0:0"),
        ("address = \"127.0.0.1:0\"\ntls_cert = \"/x\"", "tls_cert and tls_key"),
        ("address = \"127.0.0.1:0\"\ntls_cert = \"/x\"\ntls_key = \"/x\"", "tls_cert: reading /x"),
    ] {
        let options = NodeOptions { config: table(keys), ..NodeOptions::default() };
        let refused = format!("{:#}", Node::start(&options).err().expect(keys));
        assert!(refused.contains(want), "{keys}: {refused}");
    }
}

#[test]
fn the_debug_socket_tells_of_the_daemon() {
    let mut node = Node::prepare(&NodeOptions::default()).unwrap();
    let (file, socket) = (node.path("config.toml"), node.path("debug.sock"));
    let mut text = fs::read_to_string(&file).unwrap();
    text += &format!("\n[plugins.\"io.containerd.server.v1.debug\"]\naddress = \"{}\"\n", socket.display());
    fs::write(&file, text).unwrap();
    node.launch().unwrap();
    let curl = kevel_e2e::find("curl").unwrap();
    let get = |path: &str| {
        let url = format!("http://localhost{path}");
        let said = run(&curl, &["-sf", "--unix-socket", socket.to_str().unwrap(), &url]).unwrap().ok().unwrap();
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    assert_eq!(get("/debug/vars")["pid"], node.pid().unwrap());
    let plugins = get("/debug/plugins");
    let own = plugins.as_array().unwrap().iter().find(|plugin| plugin["uri"] == "io.containerd.server.v1.debug");
    assert_eq!(own.unwrap()["status"], "ok");
    node.stop().unwrap();
    assert!(!socket.exists());
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
