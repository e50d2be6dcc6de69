//! What hangs below the daemon: the runtime, a shim, a file system. Every call ends in bounded time, what can be ended is
//! ended, and others are not held up.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kevel_e2e::{Client, Faults, Ledger, Node, NodeOptions, Registry, run};
use kevel_proto::runtime::v1 as cri;
use tonic::Code;

/// The kubelet gives up after two minutes; everything here ends well before.
const BOUND: Duration = Duration::from_secs(90);

struct Setup {
    _registry: Registry,
    node: Node,
    faults: Faults,
    pods: Client,
    before: Ledger,
}

async fn setup(runtime: &str) -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let faults = Faults::new().unwrap();
    let options = NodeOptions {
        hosts_dir: registry.hosts_dir().to_owned(),
        sandbox_image: registry.reference("pause").to_owned(),
        ..NodeOptions::default()
    };
    let mut node = faults.node(options, "", runtime).unwrap();
    node.launch().unwrap();
    let pods = Client::of(&node, registry.reference("busybox")).await.unwrap();
    let id = pods.run(pods.config("first"), "").await.unwrap();
    pods.remove_pod(&id).await.unwrap();
    let before = Ledger::of(&node, &faults).unwrap();
    Setup { _registry: registry, node, faults, pods, before }
}

/// A pod and a container that sleeps in it, started.
async fn sleeper(pods: &Client, name: &str) -> (String, String) {
    let pod = pods.run(pods.config(name), "").await.unwrap();
    let id = pods.create(&pod, name, pods.container(name, "exec sleep 1000")).await.unwrap();
    pods.start(&id, None).await.unwrap();
    (pod, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_hangs() {
    let setup = setup("").await;
    let pods = &setup.pods;
    let (pod, _) = sleeper(pods, "one").await;

    // Creating: who waits is told the stage and joins by asking again.
    let slow = pods.create(&pod, "one", pods.container("slow", "exec sleep 1000")).await.unwrap();
    setup.faults.hold("runc-create").unwrap();
    let late = pods.start(&slow, Some(Duration::from_secs(2))).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(late.message().contains("start container") && late.message().contains("still creating the task"), "{late}");
    let again = pods.start(&slow, None);
    setup.faults.release("runc-create");
    again.await.unwrap();

    pods.remove_pod(&pod).await.unwrap();
    setup.before.wait(&setup.node, &setup.faults).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_stuck() {
    let setup = setup("").await;
    let pods = &setup.pods;
    let (stuck, container) = sleeper(pods, "stuck").await;
    let (well, neighbour) = sleeper(pods, "well").await;
    let shim =
        setup.node.leaks().processes.into_iter().find(|line| line.contains("containerd-shim") && line.contains(&stuck));
    let pid = shim.unwrap().split(' ').next().unwrap().to_owned();
    run(Path::new("/bin/kill"), &["-STOP", &pid]).unwrap().ok().unwrap();

    let begun = Instant::now();
    pods.stop_pod(&stuck).await.unwrap();
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert_eq!(pods.status(&container).await.unwrap().state(), cri::ContainerState::ContainerExited);
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "the shim lives");
    assert_eq!(pods.status(&neighbour).await.unwrap().state(), cri::ContainerState::ContainerRunning);
    for pod in [stuck, well] {
        pods.remove_pod(&pod).await.unwrap();
    }
    setup.before.wait(&setup.node, &setup.faults).unwrap();
}

/// A small ext4 on a loop device; thawed, unmounted and removed at the end.
struct Volume {
    dir: tempfile::TempDir,
}

impl Volume {
    fn new() -> Self {
        let volume = Self { dir: tempfile::Builder::new().prefix("kevel-vol-").tempdir().unwrap() };
        let image = volume.dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        tool("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        fs::create_dir(volume.mount()).unwrap();
        tool("mount", &["-o", "loop", image.to_str().unwrap(), volume.mount().to_str().unwrap()]);
        volume
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn freeze(&self, frozen: bool) {
        tool("fsfreeze", &[if frozen { "-f" } else { "-u" }, self.mount().to_str().unwrap()]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let mount = self.mount();
        for (program, flag) in [("fsfreeze", "-u"), ("umount", "-l")] {
            let _ = kevel_e2e::find(program).and_then(|program| run(&program, &[flag, mount.to_str().unwrap_or("")]));
        }
    }
}

fn tool(name: &str, arguments: &[&str]) {
    run(&kevel_e2e::find(name).unwrap(), arguments).unwrap().ok().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_does_not_answer() {
    let setup = setup("host_path_timeout = \"2s\"").await;
    let pods = &setup.pods;
    let volume = Volume::new();
    let (pod, _) = sleeper(pods, "one").await;
    let with = |name: &str, path: &Path| {
        let mut config = pods.container(name, "exec sleep 1000");
        config.mounts = vec![cri::Mount {
            container_path: "/data".to_owned(),
            host_path: path.display().to_string(),
            ..Default::default()
        }];
        config
    };
    // A directory has to be made there, which waits for as long as the file system is frozen.
    let inside = volume.mount().join("new");
    volume.freeze(true);
    let begun = Instant::now();
    let error = pods.create(&pod, "one", with("frozen", &inside)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("config.mounts[0].host_path") && error.message().contains("within 2s"), "{error}");
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    // Nobody else is held up, and the same path is refused without another look.
    let well = pods.create(&pod, "one", with("well", setup.node.path("volume").as_path())).await.unwrap();
    pods.start(&well, None).await.unwrap();
    let begun = Instant::now();
    let error = pods.create(&pod, "one", with("frozen", &inside)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("has not answered for"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let (_, info) = pods.node_status().await.unwrap();
    assert!(info["stuckPaths"].contains(inside.to_str().unwrap()), "{}", info["stuckPaths"]);

    volume.freeze(false);
    kevel_e2e::eventually("the path to answer", async || {
        pods.create(&pod, "one", with("frozen", &inside)).await.is_ok()
    })
    .await;
    pods.remove_pod(&pod).await.unwrap();
    setup.before.wait(&setup.node, &setup.faults).unwrap();
}
