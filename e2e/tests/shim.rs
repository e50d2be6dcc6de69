//! Our own shim: under keveld with a CRI client, and unchanged under containerd's daemons, the newest and Debian's.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use kevel_e2e::{Background, Client, Node, NodeOptions, Registry, ctr, debian_ctr, eventually, find, until};
use kevel_proto::runtime::v1 as cri;

const RUNTIME: &str = "io.containerd.kevel.v1";

struct Setup {
    _registry: Registry,
    node: Node,
    pods: Client,
}

impl Setup {
    async fn new() -> Self {
        let registry = Registry::start(&["busybox", "pause"]).unwrap();
        let handler = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.kevel]";
        let options = NodeOptions {
            config: format!("{handler}\nruntime_type = \"{RUNTIME}\"\n"),
            hosts_dir: registry.hosts_dir().to_owned(),
            sandbox_image: registry.reference("pause").to_owned(),
            ..NodeOptions::default()
        };
        let node = Node::start(&options).unwrap();
        let pods = Client::of(&node, registry.reference("busybox")).await.unwrap();
        Self { _registry: registry, node, pods }
    }

    async fn exec(&self, id: &str, script: &str) -> cri::ExecSyncResponse {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: 30,
        };
        self.pods.runtime.clone().exec_sync(request).await.unwrap().into_inner()
    }

    async fn exited(&self, id: &str) -> cri::ContainerStatus {
        let ended = async || {
            let status = self.pods.status(id).await.unwrap();
            status.state() == cri::ContainerState::ContainerExited
        };
        eventually("the container to end", ended).await;
        self.pods.status(id).await.unwrap()
    }

    async fn container(&self, pod: &str, name: &str, script: &str) -> String {
        let id = self.pods.create(pod, name, self.pods.container(name, script)).await.unwrap();
        self.pods.start(&id, None).await.unwrap();
        id
    }

    /// The one shim that runs. What it begins for the runtime has its name, too, until that executes the runtime's program.
    async fn shim(&self) -> String {
        let shims = || {
            let processes = self.node.leaks().processes;
            processes.into_iter().filter(|line| line.contains("containerd-shim-kevel-v1")).collect::<Vec<_>>()
        };
        eventually("one shim", async || shims().len() == 1).await;
        shims().swap_remove(0)
    }

    async fn clean(self, pod: &str) {
        self.pods.stop_pod(pod).await.unwrap();
        self.pods.remove_pod(pod).await.unwrap();
        self.node.remove_parent_cgroup();
        self.node.assert_no_leaks().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_two_containers_shares_one_shim() {
    let setup = Setup::new().await;
    let pod = setup.pods.run(setup.pods.config("two"), "kevel").await.unwrap();
    let one = setup.container(&pod, "one", "echo out; echo err >&2; exec sleep 1000").await;
    let two = setup.container(&pod, "two", "exit 9").await;
    setup.shim().await;
    assert_eq!(setup.exited(&two).await.exit_code, 9);

    let said = setup.exec(&one, "echo said; echo wrong >&2; exit 3").await;
    assert_eq!((said.exit_code, &said.stdout[..], &said.stderr[..]), (3, &b"said\n"[..], &b"wrong\n"[..]));
    let long = setup.exec(&one, "yes | head -c 1000000").await;
    assert_eq!(long.stdout.len(), 1_000_000);
    let log = setup.node.path("logs/one.log");
    let lines = until("the log", || fs::read_to_string(&log).ok().filter(|text| text.lines().count() == 2)).unwrap();
    assert!(lines.contains(" stdout F out\n") && lines.contains(" stderr F err\n"), "{lines}");
    let request = cri::ContainerStatsRequest { container_id: one.clone() };
    let stats = setup.pods.runtime.clone().container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    setup.pods.stop(&one, 0).await.unwrap();
    assert_eq!(setup.exited(&one).await.exit_code, 137);
    setup.clean(&pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_survive_the_daemon_and_a_killed_shim_leaves_nothing() {
    let mut setup = Setup::new().await;
    let pod = setup.pods.run(setup.pods.config("stays"), "kevel").await.unwrap();
    let runs = setup.container(&pod, "runs", "exec sleep 1000").await;
    let ends = setup.container(&pod, "ends", "while [ ! -e /go ]; do sleep 0.1; done; exit 5").await;
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    (setup.pods.runtime, _) = setup.node.cri().await.unwrap();
    assert_eq!(setup.pods.status(&runs).await.unwrap().state(), cri::ContainerState::ContainerRunning);
    assert_eq!(setup.exec(&runs, "echo back").await.stdout, b"back\n");
    setup.exec(&ends, "touch /go").await;
    assert_eq!(setup.exited(&ends).await.exit_code, 5);

    let shim = setup.shim().await;
    let pid = shim.split(' ').next().unwrap().to_owned();
    kevel_e2e::run(Path::new("/bin/kill"), &["-KILL", &pid]).unwrap().ok().unwrap();
    assert_eq!(setup.exited(&runs).await.exit_code, 137);
    setup.clean(&pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_out_of_memory_says_so() {
    let setup = Setup::new().await;
    let pod = setup.pods.run(setup.pods.config("oom"), "kevel").await.unwrap();
    let mut config = setup.pods.container("eats", "exec tail /dev/zero");
    let resources = cri::LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() };
    config.linux = Some(cri::LinuxContainerConfig { resources: Some(resources), ..Default::default() });
    let id = setup.pods.create(&pod, "eats", config).await.unwrap();
    setup.pods.start(&id, None).await.unwrap();
    let status = setup.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    setup.clean(&pod).await;
}

/// A daemon of containerd's that finds our shim as it finds any other: by its `PATH`.
fn containerd(program: &Path, folder: &Path, config: &str) -> (Background, PathBuf) {
    let test = std::env::current_exe().unwrap();
    let own = test.parent().unwrap().parent().unwrap();
    assert!(own.join("containerd-shim-kevel-v1").exists(), "our shim is not built; cargo build --workspace --bins");
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.toml"), config).unwrap();
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", own.display());
    let (config, program) = (folder.join("config.toml").display().to_string(), program.display().to_string());
    let socket = folder.join("c.sock");
    let daemon = Background::start("env", &[&path, &program, "--config", &config], &socket).unwrap();
    (daemon, socket)
}

fn newest(folder: &Path) -> String {
    let dir = folder.display();
    format!(
        r#"version = 4
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri"]
[plugins."io.containerd.server.v1.grpc"]
address = "{dir}/c.sock"
[plugins."io.containerd.server.v1.ttrpc"]
address = "{dir}/c.sock.ttrpc"
[plugins."io.containerd.shim.v1.manager"]
socket_dir = "{dir}/s"
"#
    )
}

fn debian(folder: &Path) -> String {
    let dir = folder.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{dir}/c.sock"
"#
    )
}

#[test]
fn containerd_runs_it_unchanged() {
    let registry = Registry::start(&["busybox"]).unwrap();
    let reference = registry.reference("busybox");
    let programs = [
        (find("containerd").unwrap(), newest as fn(&Path) -> String, true),
        (PathBuf::from("/usr/bin/containerd"), debian, false),
    ];
    for (program, config, is_new) in programs {
        // Short: paths of sockets are.
        let dir = Node::directory().unwrap();
        let folder = dir.path().join("c");
        let (mut daemon, socket) = containerd(&program, &folder, &config(&folder));
        let run = |words: &[&str]| if is_new { ctr(&socket, words) } else { debian_ctr(&socket, words) };
        let ok = |words: &[&str]| run(words).unwrap().ok().unwrap_or_else(|error| panic!("{words:?}: {error:#}"));
        until("containerd to answer", || run(&["version"]).ok()?.ok().ok()).unwrap();
        ok(&["images", "pull", "--hosts-dir", registry.hosts_dir(), reference]);
        let mark = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        let (group, one) = (format!("/{mark}"), format!("one-{mark}"));
        let start = |more: &[&str], id: &str, script: &str| {
            let begin = [&["run", "--runtime", RUNTIME, "--cgroup", &group][..], more].concat();
            run(&[&begin[..], &[reference, id, "sh", "-c", script]].concat()).unwrap()
        };
        let output = start(&["--rm"], &one, "echo out; echo err >&2; exit 7");
        assert_eq!((output.code, output.stdout.as_str()), (7, "out\n"), "{}", output.stderr);
        assert!(output.stderr.ends_with("err\n"), "{}", output.stderr); // ctr may warn of its own before

        let two = format!("two-{mark}");
        start(&["-d"], &two, "trap 'exit 4' TERM; while :; do sleep 0.1; done").ok().unwrap();
        assert_eq!(ok(&["tasks", "exec", "--exec-id", "e", &two, "echo", "in"]), "in\n");
        assert!(ok(&["tasks", "metrics", &two]).contains("memory"));
        ok(&["tasks", "pause", &two]);
        assert!(ok(&["tasks", "ls"]).contains("PAUSED"));
        ok(&["tasks", "resume", &two]);
        // The daemon dies and comes back to it.
        daemon.kill().unwrap();
        daemon.launch().unwrap();
        until("containerd to answer", || run(&["version"]).ok()?.ok().ok()).unwrap();
        assert!(ok(&["tasks", "ls"]).contains("RUNNING"));
        ok(&["tasks", "kill", "--signal", "SIGTERM", &two]);
        until("the task to end", || ok(&["tasks", "ls"]).contains("STOPPED").then_some(())).unwrap();
        run(&["tasks", "rm", &two]).unwrap(); // its code is the task's
        assert!(!ok(&["tasks", "ls"]).contains(&two));
        ok(&["containers", "rm", &two]);
        daemon.kill().unwrap();
        for found in kevel_e2e::Leaks::of(&mark).cgroups {
            let _ = fs::remove_dir(found);
        }
        let left = || kevel_e2e::Leaks::of(&mark);
        let clean = until("nothing to be left", || left().is_empty().then_some(()));
        clean.unwrap_or_else(|_| panic!("left behind by {program:?}: {:#?}", left()));
    }
}
