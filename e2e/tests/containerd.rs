//! containerd and Kevel as each other's backends: content, diff and snapshots over the socket of the other one.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{fs, path::Path};

use kevel_e2e::{Background, Node, NodeOptions, Registry, ctr, until};

/// Starts containerd in a folder, with lines before and after its tables.
fn containerd(folder: &Path, top: &str, tables: &str) -> Background {
    let dir = folder.display();
    let config = format!(
        r#"version = 4
root = "{dir}/root"
state = "{dir}/state"
{top}
[plugins."io.containerd.server.v1.grpc"]
address = "{dir}/containerd.sock"
[plugins."io.containerd.server.v1.ttrpc"]
address = "{dir}/containerd.sock.ttrpc"
{COLLECTOR}
[plugins."io.containerd.shim.v1.manager"]
socket_dir = "{dir}/s"
{tables}
"#
    );
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.toml"), config).unwrap();
    let config = folder.join("config.toml").display().to_string();
    let socket = folder.join("containerd.sock");
    let containerd = Background::start("containerd", &["--config", &config], &socket).unwrap();
    until("containerd to answer", || ctr(&socket, &["version"]).ok()?.ok().ok()).unwrap();
    containerd
}

/// A collector that runs only when it is asked to: a daemon that keeps other people's data sees nobody refer to it.
const COLLECTOR: &str = r#"[plugins."io.containerd.gc.v1.scheduler"]
mutation_threshold = 0
deletion_threshold = 0
startup_delay = "1h"
"#;

/// Plugins of containerd that these tests do not need; CRI and NRI would share sockets and directories of the machine.
const UNUSED: &str = r#""io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri""#;

#[test]
fn containerd_keeps_the_content_of_kevel_and_applies_its_layers() {
    let registry = Registry::start(&["busybox", "layers"]).unwrap();
    let dir = Node::directory().unwrap();
    let folder = dir.path().join("far");
    let _containerd = containerd(&folder, &format!("disabled_plugins = [{UNUSED}]"), "");
    let socket = folder.join("containerd.sock");
    let far = |words: &[&str]| ctr(&socket, words).unwrap().ok().unwrap();
    let address = socket.display();
    let options = NodeOptions {
        top: "disabled_plugins = [\"io.containerd.content.v1.content\"]".to_owned(),
        config: format!(
            r#"
[proxy_plugins.store]
type = "content"
address = "{address}"
[proxy_plugins.differ]
type = "diff"
address = "{address}"
[plugins."io.containerd.service.v1.diff-service"]
default = ["differ"]
"#
        ),
        hosts_dir: registry.hosts_dir().to_owned(),
        ..NodeOptions::default()
    };
    let node = Node::start_in(dir, &options).unwrap();
    let plugins = node.ctr(&["plugins", "ls"]).unwrap();
    for (kind, name) in [("content.v1", "store"), ("differ.v1", "differ")] {
        let of = |line: &&str| line.contains(kind) && line.contains(&format!(" {name} "));
        assert!(plugins.lines().find(of).is_some_and(|line| line.trim_end().ends_with("ok")), "{plugins}");
    }
    let hosts = registry.hosts_dir();
    for (image, local) in [("layers", &["--local"][..]), ("busybox", &[])] {
        let reference = registry.reference(image);
        node.ctr(&[&["images", "pull", "--hosts-dir", hosts], local, &[reference]].concat()).unwrap();
        let manifest = registry.image(image)["digest"].as_str().unwrap();
        assert!(far(&["content", "ls", "-q"]).contains(manifest), "{image}");
        assert!(node.ctr(&["content", "ls", "-q"]).unwrap().contains(manifest), "{image}");
        let group = format!("/{}", node.mark());
        // runc knows containers of every daemon on the machine, by namespace and id.
        let id = format!("far-{}", node.mark());
        let said = node.ctr(&["run", "--rm", "--cgroup", &group, reference, &id, "echo", "out"]).unwrap();
        assert_eq!(said, "out\n", "{image}");
    }
    // What containerd has of its own is not ours to remove; what is ours goes when nobody refers to it.
    let own = "own.txt";
    fs::write(node.path(own), "containerd's own").unwrap();
    let path = node.path(own).display().to_string();
    let ingest = format!("{} content ingest --expected-size 16 own < {path}", shell_ctr(&socket));
    kevel_e2e::run(Path::new("/bin/sh"), &["-c", &ingest]).unwrap().ok().unwrap();
    for image in ["layers", "busybox"] {
        node.ctr(&["images", "rm", "--sync", registry.reference(image)]).unwrap();
    }
    assert_eq!(node.ctr(&["content", "ls", "-q"]).unwrap(), "");
    let left = far(&["content", "ls", "-q"]);
    assert_eq!(left.lines().count(), 1, "{left}");
    node.assert_no_leaks_but(&["containerd --config"]).unwrap();
}

fn shell_ctr(socket: &Path) -> String {
    format!("{} --address {}", kevel_e2e::find("ctr").unwrap().display(), socket.display())
}

#[test]
fn kevel_keeps_content_and_snapshots_of_containerd_and_applies_its_layers() {
    let registry = Registry::start(&["layers"]).unwrap();
    let dir = Node::directory().unwrap();
    let (socket, root) = (dir.path().join("go.sock"), dir.path().join("go"));
    let (path, root) = (socket.display().to_string(), root.display().to_string());
    // containerd can't call a proxy as it calls a snapshotter of its own, and asks ours by the name of the proxy.
    let config = format!("[proxy_plugins.go]\ntype = \"snapshot\"\naddress = \"{path}\"\n{COLLECTOR}");
    let _snapshotter = Background::start("snapshotter", &["-root", &root, "-path", &path], &socket).unwrap();
    let node = Node::start_in(dir, &NodeOptions { config, ..NodeOptions::default() }).unwrap();
    let folder = node.path("near");
    let address = node.socket().display().to_string();
    let top = format!("disabled_plugins = [{UNUSED}, \"io.containerd.content.v1.content\"]");
    let tables = format!(
        r#"
[proxy_plugins.store]
type = "content"
address = "{address}"
[proxy_plugins.differ]
type = "diff"
address = "{address}"
[proxy_plugins.go]
type = "snapshot"
address = "{address}"
[plugins."io.containerd.service.v1.diff-service"]
default = ["differ"]
"#
    );
    let _containerd = containerd(&folder, &top, &tables);
    let socket = folder.join("containerd.sock");
    let near = |words: &[&str]| ctr(&socket, words).unwrap().ok().unwrap();
    let reference = registry.reference("layers");
    near(&["images", "pull", "--local", "--snapshotter", "go", "--hosts-dir", registry.hosts_dir(), reference]);
    assert!(near(&["images", "ls", "-q"]).contains(reference));
    assert_eq!(near(&["content", "ls", "-q"]), node.ctr(&["content", "ls", "-q"]).unwrap());
    let count = |list: String| list.lines().count();
    assert_eq!(count(near(&["snapshots", "--snapshotter", "go", "ls"])), 5);
    assert_eq!(count(node.ctr(&["snapshots", "--snapshotter", "go", "ls"]).unwrap()), 5);
    let (group, id) = (format!("/{}", node.mark()), format!("near-{}", node.mark()));
    let said =
        near(&["run", "--rm", "--snapshotter", "go", "--cgroup", &group, reference, &id, "cat", "/data/changed"]);
    assert_eq!(said, "3");
    near(&["images", "rm", "--sync", reference]);
    assert_eq!(near(&["content", "ls", "-q"]), "");
    node.assert_no_leaks_but(&["containerd --config", "snapshotter -root"]).unwrap();
}
