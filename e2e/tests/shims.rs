//! Shims and runtimes of other people's making under runtime handlers: in Rust, over gRPC, with sandboxes of their own, and
//! gVisor; and the published Rust clients.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{collections::BTreeMap, fs, path::Path};

use kevel_e2e::{Background, Node, NodeOptions, Pods, Registry, eventually, find, run, runsc};
use kevel_proto::{
    containerd::services::sandbox::v1::{ControllerStatusRequest, controller_client::ControllerClient},
    runtime::v1 as cri,
};
use prost::Message as _;

fn handler(name: &str, runtime: &str, more: &str) -> String {
    format!(
        "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.{name}]\nruntime_type = \"{runtime}\"\n{more}\n"
    )
}

fn options(registry: &Registry, config: String) -> NodeOptions {
    NodeOptions {
        config,
        hosts_dir: registry.hosts_dir().to_owned(),
        sandbox_image: registry.reference("pause").to_owned(),
        ..NodeOptions::default()
    }
}

/// Whether the process of a sandbox is gVisor's.
fn run_in_sandbox(info: &BTreeMap<String, String>) -> bool {
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    let line = fs::read(format!("/proc/{}/cmdline", info["pid"])).unwrap();
    line.starts_with(b"runsc-sandbox")
}

/// Two containers in a pod of a handler: they see each other, answer exec, end as told, and leave nothing.
async fn lifecycle(pods: &mut Pods, handler: &str) {
    let pod = pods.run(handler, handler).await.unwrap();
    let serve = "mkdir /w; echo page > /w/x; exec httpd -f -p 8080 -h /w";
    let web = pods.start((&pod, handler), "web", serve).await.unwrap();
    let other = pods.start((&pod, handler), "other", "exec sleep 1000").await.unwrap();
    let fetch = "until wget -q -O - http://127.0.0.1:8080/x; do sleep 0.1; done";
    assert_eq!(pods.exec(&other, fetch).await.unwrap(), "page\n", "{handler}");
    assert_eq!(pods.exec(&other, "hostname").await.unwrap(), format!("{handler}\n"));
    pods.stop(&web).await.unwrap();
    let status = pods.status(&web).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (cri::ContainerState::ContainerExited, 137), "{handler}");
    assert_eq!(pods.exec(&other, "echo still").await.unwrap(), "still\n", "{handler}");
    pods.remove(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_shims_run_pods() {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let dir = Node::directory().unwrap();
    let runsc = runsc(dir.path()).unwrap();
    let config = [
        handler("rust", "io.containerd.runc.v2-rs", ""),
        handler("grpc", "io.containerd.grpc.v3", ""),
        handler("gvisor", "io.containerd.runc.v2", &format!("options = {{ BinaryName = {runsc:?} }}")),
    ];
    let node = Node::start_in(dir, &options(&registry, config.concat())).unwrap();
    let mut pods = Pods::of(&node, registry.reference("busybox")).await.unwrap();
    pods.pull("").await.unwrap();
    for handler in ["rust", "grpc"] {
        lifecycle(&mut pods, handler).await;
    }
    node.remove_parent_cgroup();
    node.assert_no_leaks().unwrap();

    let hosts = registry.hosts_dir();
    let reference = registry.reference("busybox");
    node.ctr(&["images", "pull", "--local", "--hosts-dir", hosts, reference]).unwrap();
    for runtime in ["io.containerd.runc.v2-rs", "io.containerd.grpc.v3"] {
        // runc knows containers of every daemon on the machine, by namespace and id.
        let (group, id) = (format!("/{}", node.mark()), format!("once-{}", node.mark()));
        let base = ["run", "--rm", "--runtime", runtime, "--cgroup", &group, reference, &id, "sh", "-c"];
        assert_eq!(node.ctr(&[&base[..], &["echo out"]].concat()).unwrap(), "out\n", "{runtime}");
        let failed = kevel_e2e::ctr(&node.socket(), &[&base[..], &["exit 7"]].concat()).unwrap();
        assert_eq!(failed.code, 7, "{runtime}: {failed:?}");
    }

    // gVisor has a kernel of its own.
    let (group, id) = (format!("/{}", node.mark()), format!("gvisor-{}", node.mark()));
    let run = ["run", "--rm", "--runc-binary", &runsc, "--cgroup", &group, reference, &id, "dmesg"];
    let said = node.ctr(&run).unwrap();
    assert!(said.contains("gVisor"), "{said}");
    let pod = pods.run("gvisor", "gvisor").await.unwrap();
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
    let status = pods.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
    assert_eq!(status.status.unwrap_or_default().state(), cri::PodSandboxState::SandboxReady);
    assert!(run_in_sandbox(&status.info), "{:?}", status.info);
    let container = pods.start((&pod, "gvisor"), "one", "exec sleep 1000").await.unwrap();
    assert!(pods.exec(&container, "dmesg").await.unwrap().contains("gVisor"));
    pods.stop(&container).await.unwrap();
    assert_eq!(pods.status(&container).await.unwrap().exit_code, 137);
    let failed = pods.start((&pod, "gvisor"), "two", "exit 7").await.unwrap();
    let ended = cri::ContainerState::ContainerExited;
    eventually("a container to end", async || pods.status(&failed).await.unwrap().state() == ended).await;
    assert_eq!(pods.status(&failed).await.unwrap().exit_code, 7);
    pods.remove(&pod).await.unwrap();
    node.remove_parent_cgroup();
    node.assert_no_leaks().unwrap();
}

/// gVisor's own shim, where there is one: it keeps all containers of a pod in one sandbox.
#[tokio::test(flavor = "multi_thread")]
async fn gvisors_own_shim_runs_pods() {
    let Ok(shim) = find("containerd-shim-runsc-v1") else {
        eprintln!("skipped: containerd-shim-runsc-v1 is not on PATH; it and its runsc come with gVisor");
        return;
    };
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let dir = Node::directory().unwrap();
    let config = dir.path().join("runsc.toml");
    fs::write(&config, format!("binary_name = {:?}\n", shim.with_file_name("runsc"))).unwrap();
    let more = format!("options = {{ TypeUrl = \"io.containerd.runsc.v1.options\", ConfigPath = {config:?} }}");
    let handlers = handler("gvisor", "io.containerd.runsc.v1", &more);
    let mut node = Node::start_in(dir, &options(&registry, handlers)).unwrap();
    let mut pods = Pods::of(&node, registry.reference("busybox")).await.unwrap();
    pods.pull("").await.unwrap();
    for name in ["own", "taken-up"] {
        let pod = pods.run(name, "gvisor").await.unwrap();
        let serve = "mkdir /w; echo page > /w/x; exec httpd -f -p 8080 -h /w";
        pods.start((&pod, name), "web", serve).await.unwrap();
        let other = pods.start((&pod, name), "other", "exec sleep 1000").await.unwrap();
        let fetch = "until wget -q -O - http://127.0.0.1:8080/x; do sleep 0.1; done";
        assert_eq!(pods.exec(&other, fetch).await.unwrap(), "page\n");
        assert_eq!(pods.exec(&other, "hostname").await.unwrap(), format!("{name}\n"));
        assert!(pods.exec(&other, "dmesg").await.unwrap().contains("gVisor"));
        if name == "taken-up" {
            node.kill().unwrap();
            node.launch().unwrap();
            pods = Pods::of(&node, registry.reference("busybox")).await.unwrap();
            assert_eq!(pods.exec(&other, "echo back").await.unwrap(), "back\n");
        }
        pods.remove(&pod).await.unwrap();
    }
    // Its processes leave their cgroups a little later.
    eventually("nothing to be left", async || {
        node.remove_parent_cgroup();
        node.leaks().is_empty()
    })
    .await;
    node.assert_no_leaks().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_are_made_by_shims_and_by_proxies() {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let dir = Node::directory().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (controller, tasks, events) = (path("sandboxer.sock"), path("tasks.sock"), path("state/kevel.sock.ttrpc"));
    let config = [
        handler("shim", "io.containerd.sandbox.v1", "sandboxer = \"shim\"\npod_annotations = [\"kevel.test/*\"]"),
        handler("proxy", "io.containerd.runc.v2", "sandboxer = \"boxes\"\npod_annotations = [\"kevel.test/*\"]"),
        format!("[proxy_plugins.boxes]\ntype = \"sandbox\"\naddress = \"{controller}\"\n"),
    ];
    let mut node = Node::start_in(dir, &options(&registry, config.concat())).unwrap();
    let socket = node.path("sandboxer.sock");
    let flags = ["-path", &controller, "-tasks", &tasks, "-events", &events];
    let mut sandboxer = Background::start("sandboxer", &flags, &socket).unwrap();
    let mut pods = Pods::of(&node, registry.reference("busybox")).await.unwrap();
    pods.pull("").await.unwrap();
    for (handler, sandboxer) in [("shim", "shim"), ("proxy", "boxes")] {
        lifecycle(&mut pods, handler).await;

        // What the controller was told.
        let name = format!("told-{handler}");
        let pod = pods.run(&name, handler).await.unwrap();
        let request =
            ControllerStatusRequest { sandbox_id: pod.clone(), verbose: true, sandboxer: sandboxer.to_owned() };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("containerd-namespace", "k8s.io".parse().unwrap());
        let mut controllers = ControllerClient::new(node.channel().await.unwrap());
        let status = controllers.status(request).await.unwrap().into_inner();
        assert_eq!(status.state, "SANDBOX_READY");
        assert!(status.pid > 0 && status.version == 3, "{status:?}");
        assert!(status.address.starts_with("ttrpc+unix://"), "{}", status.address);
        assert_eq!(status.info["options"], "runtime.v1.PodSandboxConfig");
        let told = cri::PodSandboxConfig::decode(unhex(&status.info["config"]).as_slice()).unwrap();
        assert_eq!(told, pods.config(&name));
        assert!(Path::new(&status.info["netns"]).exists(), "{}", status.info["netns"]);
        assert!(status.info["annotations"].contains(&format!("\"kevel.test/pod\":{name:?}")), "{status:?}");

        // The daemon comes back to it.
        let container = pods.start((&pod, &name), "one", "exec sleep 1000").await.unwrap();
        node.kill().unwrap();
        node.launch().unwrap();
        pods = Pods::of(&node, registry.reference("busybox")).await.unwrap();
        assert_eq!(pods.exec(&container, "echo back").await.unwrap(), "back\n", "{handler}");
        pods.remove(&pod).await.unwrap();
    }
    assert!(sandboxer.runs(), "{}", sandboxer.log());
    node.remove_parent_cgroup();
    node.assert_no_leaks_but(&["sandboxer -path"]).unwrap();
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn published_rust_clients_work() {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let node = Node::start(&options(&registry, String::new())).unwrap();
    let program = find("kevel-test-clients").unwrap();
    let (socket, group) = (node.socket().display().to_string(), format!("/{}", node.mark()));
    for client in ["cri", "containerd"] {
        let said = run(&program, &[client, &socket, registry.reference("busybox"), &group]).unwrap();
        said.ok().unwrap_or_else(|error| panic!("{client}: {error:#}"));
    }
    node.remove_parent_cgroup();
    node.assert_no_leaks().unwrap();
}
