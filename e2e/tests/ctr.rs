//! containerd's `ctr`, 2.4 and Debian's, and a Go program on containerd's client, unchanged against the daemon.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use kevel_e2e::{Node, NodeOptions, Registry, debian_ctr, find, run, until};
use serde_json::Value;

fn setup(images: &[&str]) -> (Registry, Node) {
    let registry = Registry::start(images).unwrap();
    let node = Node::start(&NodeOptions { hosts_dir: registry.hosts_dir().to_owned(), ..Default::default() }).unwrap();
    (registry, node)
}

fn pull(node: &Node, registry: &Registry, image: &str) {
    let hosts = registry.hosts_dir();
    node.ctr(&["images", "pull", "--local", "--hosts-dir", hosts, registry.reference(image)]).unwrap();
}

#[test]
fn images_are_pulled_listed_exported_imported_and_removed() {
    let (registry, node) = setup(&["busybox", "layers"]);
    let reference = registry.reference("layers");
    pull(&node, &registry, "layers");
    let list = node.ctr(&["images", "ls"]).unwrap();
    assert!(list.contains(reference) && list.contains(registry.image("layers")["digest"].as_str().unwrap()), "{list}");
    assert_eq!(node.ctr(&["content", "ls", "-q"]).unwrap().lines().count(), 6);
    assert_eq!(node.ctr(&["snapshots", "ls"]).unwrap().lines().count(), 5);

    let archive = node.path("layers.tar");
    let archive = archive.to_str().unwrap();
    node.ctr(&["images", "export", "--local", archive, reference]).unwrap();
    node.ctr(&["images", "rm", "--sync", reference]).unwrap();
    assert_eq!(node.ctr(&["content", "ls", "-q"]).unwrap(), "");
    assert_eq!(node.ctr(&["snapshots", "ls"]).unwrap().lines().count(), 1);
    node.ctr(&["images", "import", "--local", archive]).unwrap();
    assert!(node.ctr(&["images", "ls", "-q"]).unwrap().contains(reference));
    node.ctr(&["images", "rm", "--sync", reference]).unwrap();
    node.assert_no_leaks().unwrap();
}

#[test]
fn images_are_pulled_by_the_transfer_service() {
    let (registry, node) = setup(&["layers-zstd", "multi"]);
    let hosts = registry.hosts_dir();
    for image in ["layers-zstd", "multi"] {
        let reference = registry.reference(image);
        node.ctr(&["images", "pull", "--hosts-dir", hosts, reference]).unwrap();
        assert!(node.ctr(&["images", "ls", "-q"]).unwrap().contains(reference));
    }
    assert!(node.ctr(&["snapshots", "ls"]).unwrap().lines().count() > 4);
}

#[test]
fn a_container_runs_and_leaves_nothing() {
    let (registry, node) = setup(&["busybox"]);
    pull(&node, &registry, "busybox");
    let reference = registry.reference("busybox");
    let group = format!("/{}", node.mark());
    let base = ["run", "--rm", "--cgroup", &group, reference, "once"];
    let said = node.ctr(&[&base[..], &["sh", "-c", "echo out; echo $0 $1", "a", "b"]].concat()).unwrap();
    assert_eq!(said, "out\na b\n");
    let failed = kevel_e2e::ctr(&node.socket(), &[&base[..], &["sh", "-c", "exit 7"]].concat()).unwrap();
    assert_eq!(failed.code, 7, "{failed:?}");
    assert_eq!(node.ctr(&["containers", "ls", "-q"]).unwrap(), "");
    node.assert_no_leaks().unwrap();
}

#[test]
fn a_task_in_the_background_is_executed_in_measured_and_killed() {
    let (registry, node) = setup(&["busybox"]);
    pull(&node, &registry, "busybox");
    let group = format!("/{}", node.mark());
    node.ctr(&["run", "-d", "--cgroup", &group, registry.reference("busybox"), "back", "sleep", "1000"]).unwrap();
    let list = node.ctr(&["tasks", "ls"]).unwrap();
    assert!(list.lines().any(|line| line.starts_with("back ") && line.ends_with("RUNNING")), "{list}");
    assert_eq!(node.ctr(&["tasks", "exec", "--exec-id", "one", "back", "echo", "inside"]).unwrap(), "inside\n");
    assert!(node.ctr(&["tasks", "metrics", "back"]).unwrap().contains("back"));
    assert!(node.ctr(&["tasks", "ps", "back"]).unwrap().lines().count() >= 2);
    node.ctr(&["tasks", "pause", "back"]).unwrap();
    assert!(node.ctr(&["tasks", "ls"]).unwrap().contains("PAUSED"));
    node.ctr(&["tasks", "resume", "back"]).unwrap();
    node.ctr(&["tasks", "kill", "--signal", "SIGKILL", "back"]).unwrap();
    until("the task to stop", || node.ctr(&["tasks", "ls"]).ok().filter(|list| list.contains("STOPPED"))).unwrap();
    node.ctr(&["tasks", "rm", "back"]).ok(); // its exit code is the task's
    node.ctr(&["containers", "rm", "back"]).unwrap();
    node.assert_no_leaks().unwrap();
}

#[test]
fn running_tasks_survive_the_daemon() {
    let (registry, mut node) = setup(&["busybox"]);
    pull(&node, &registry, "busybox");
    let group = format!("/{}", node.mark());
    node.ctr(&["run", "-d", "--cgroup", &group, registry.reference("busybox"), "stays", "sleep", "1000"]).unwrap();
    let before = node.ctr(&["tasks", "ls"]).unwrap();
    node.kill().unwrap();
    node.launch().unwrap();
    let after =
        until("the task to be listed", || node.ctr(&["tasks", "ls"]).ok().filter(|list| list.contains("stays")))
            .unwrap();
    assert_eq!(after, before);
    assert_eq!(node.ctr(&["tasks", "exec", "--exec-id", "one", "stays", "echo", "back"]).unwrap(), "back\n");
    node.ctr(&["tasks", "kill", "--signal", "SIGKILL", "stays"]).unwrap();
    until("the task to stop", || node.ctr(&["tasks", "ls"]).ok().filter(|list| list.contains("STOPPED"))).unwrap();
    node.ctr(&["tasks", "rm", "stays"]).ok(); // its exit code is the task's
    node.ctr(&["containers", "rm", "stays"]).unwrap();
    node.assert_no_leaks().unwrap();
}

#[test]
fn leases_and_content_are_handled_by_hand() {
    let node = Node::start(&NodeOptions::default()).unwrap();
    node.ctr(&["leases", "create", "--id", "mine", "a=b"]).unwrap();
    assert!(node.ctr(&["leases", "ls"]).unwrap().contains("a=b"));
    node.ctr(&["leases", "rm", "mine"]).unwrap();
    assert!(!node.ctr(&["leases", "ls"]).unwrap().contains("mine"));
    let missing = node.ctr(&["content", "get", &format!("sha256:{}", "0".repeat(64))]).unwrap_err();
    assert!(missing.root_cause().to_string().contains("not found"), "{missing:#}");
}

#[test]
fn debians_older_ctr_works_too() {
    let (registry, node) = setup(&["busybox"]);
    let (hosts, reference) = (registry.hosts_dir(), registry.reference("busybox"));
    let old = |arguments: &[&str]| debian_ctr(&node.socket(), arguments).unwrap().ok().unwrap();
    old(&["images", "pull", "--hosts-dir", hosts, reference]);
    assert!(old(&["images", "ls", "-q"]).contains(reference));
    let group = format!("/{}", node.mark());
    assert_eq!(old(&["run", "--rm", "--cgroup", &group, reference, "old", "echo", "hi"]), "hi\n");
    assert!(old(&["plugins", "ls"]).contains("overlayfs"));
    node.assert_no_leaks().unwrap();
}

#[test]
fn a_go_program_on_containerds_client_runs_a_container() {
    let (registry, node) = setup(&["configured"]);
    let socket = node.socket();
    let arguments =
        ["-address", socket.to_str().unwrap(), "-hosts-dir", registry.hosts_dir(), registry.reference("configured")];
    let said = run(&find("pullrun").unwrap(), &arguments).unwrap();
    assert_eq!(said.code, 0, "{said:?}\n{}", node.log());
    let said: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(said["init"]["stdout"], "hello world kevel:extra /home/kevel one two\n", "{said:#}");
    node.assert_no_leaks().unwrap();
}

/// A file system in an image, mounted by the daemon for whoever asked: kept by a lease, through a crash of the daemon, until the
/// lease ends.
#[test]
fn a_go_program_has_mounts_made_ready() {
    if find("mkfs.ext4").is_err() || !std::fs::exists("/dev/loop-control").unwrap() {
        eprintln!("skipped: no mkfs.ext4 or no loop devices here");
        return;
    }
    let mut node = Node::start(&NodeOptions::default()).unwrap();
    let socket = node.socket();
    let mounts = |arguments: &[&str]| {
        let all = [&["-address", socket.to_str().unwrap()], arguments].concat();
        run(&find("mounts").unwrap(), &all).unwrap()
    };
    let said = |arguments: &[&str]| -> Value { serde_json::from_str(&mounts(arguments).ok().unwrap()).unwrap() };
    let image = node.path("root/fs.img");
    let list = serde_json::json!([
        { "Type": "mkfs/loop", "Source": image, "Options": ["X-containerd.mkfs.size=8MiB"] },
        { "Type": "format/ext4", "Source": "{{ mount 0 }}" },
        { "Type": "format/mkdir/bind", "Source": "{{ mount 1 }}/in", "Options": ["X-containerd.mkdir.path={{ mount 1 }}/in", "rbind"] },
    ])
    .to_string();
    node.ctr(&["leases", "create", "--id", "keeps"]).unwrap();
    let made = said(&["-lease", "keeps", "-label", "a=1", "activate", "kept", &list]);
    let point = made["Active"][1]["MountPoint"].as_str().unwrap().to_owned();
    assert!(point.starts_with(node.path("state").to_str().unwrap()), "{made:#}");
    assert_eq!(made["System"][0]["Source"], format!("{point}/in"), "{made:#}");
    assert_eq!(made["System"][0]["Type"], "bind");
    std::fs::write(format!("{point}/in/file"), "data").unwrap();
    node.ctr(&["leases", "create", "--id", "ends"]).unwrap();
    said(&["-lease", "ends", "activate", "loose", &list.replace("fs.img", "other.img")]);
    assert_eq!(said(&["list"]), serde_json::json!(["kept", "loose"]));
    assert_eq!(said(&["list", "labels.a==1"]), serde_json::json!(["kept"]));
    let again = mounts(&["activate", "kept", &list]);
    assert!(again.code == 1 && again.stderr.contains("already exists"), "{again:?}");
    let plain = mounts(&["activate", "plain", r#"[{ "Type": "tmpfs", "Source": "tmpfs" }]"#]);
    assert!(plain.code == 1 && plain.stderr.contains("need no manager"), "{plain:?}");

    node.ctr(&["leases", "rm", "ends"]).unwrap();
    node.kill().unwrap();
    node.launch().unwrap();
    // Nothing keeps the other one: it is garbage, for the collection after the start at the latest.
    until("what nothing keeps to go", || (said(&["list"]) == serde_json::json!(["kept"])).then_some(())).unwrap();
    assert_eq!(said(&["info", "kept"])["Active"], made["Active"]);
    assert_eq!(std::fs::read_to_string(format!("{point}/in/file")).unwrap(), "data");

    node.ctr(&["leases", "rm", "--sync", "keeps"]).unwrap();
    assert_eq!(said(&["list"]), serde_json::json!([]));
    assert!(!std::fs::exists(&point).unwrap(), "{point} is left");
    node.assert_no_leaks().unwrap();

    // What was in the image is there the next time.
    said(&["-temporary", "activate", "look", &list]);
    let look = said(&["info", "look"]);
    let inside = look["System"][0]["Source"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(format!("{inside}/file")).unwrap(), "data", "{look:#}");
    mounts(&["deactivate", "look"]).ok().unwrap();
    let gone = mounts(&["deactivate", "look"]);
    assert!(gone.code == 1 && gone.stderr.contains("not found"), "{gone:?}");
    node.assert_no_leaks().unwrap();
}
