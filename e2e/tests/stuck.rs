//! What hangs below the daemon: the runtime, a shim, a file system. Every call ends in bounded time, what can be ended is
//! ended, and others are not held up.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kevel_e2e::{Client, Faults, Ledger, Node, Registry, eventually, patience, run};
use kevel_proto::runtime::v1 as cri;
use tonic::Code;

/// The kubelet gives up after two minutes; everything here ends well before.
fn bound() -> Duration {
    patience(90)
}

/// Long enough for a call to come to where it is held.
fn soon() -> Duration {
    patience(2)
}

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
    let options = registry.node_options();
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
    let late = pods.start(&slow, Some(soon())).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(late.message().contains("start container") && late.message().contains("still creating the task"), "{late}");
    let again = pods.start(&slow, None);
    setup.faults.release("runc-create");
    again.await.unwrap();

    pods.remove_pod(&pod).await.unwrap();
    setup.before.wait(&setup.node, &setup.faults).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_that_hangs_costs_nobody_but_its_container() {
    let setup = setup("").await;
    let pods = &setup.pods;
    let (pod, gentle) = sleeper(pods, "one").await;
    let mut others = Vec::new();
    for name in ["abrupt", "well", "refused"] {
        let id = pods.create(&pod, "one", pods.container(name, "exec sleep 1000")).await.unwrap();
        pods.start(&id, None).await.unwrap();
        others.push(id);
    }
    setup.faults.hold("runc-kill").unwrap();
    // The stop signal does not get through; neither does SIGKILL, and the container ends all the same.
    for (id, grace) in [(&gentle, 2), (&others[0], 0)] {
        let begun = Instant::now();
        pods.stop(id, grace).await.unwrap();
        assert!(begun.elapsed() < bound(), "{:?}", begun.elapsed());
        let ended = pods.status(id).await.unwrap();
        assert_eq!((ended.state(), ended.exit_code), (cri::ContainerState::ContainerExited, 137));
        assert_eq!(pods.status(&others[1]).await.unwrap().state(), cri::ContainerState::ContainerRunning);
        assert_eq!(pods.list().await.unwrap()[0].state(), cri::PodSandboxState::SandboxReady);
    }
    // A runtime that answers with an error is no better.
    setup.faults.release("runc-kill");
    setup.faults.fail("runc-kill").unwrap();
    pods.stop(&others[2], 1).await.unwrap();
    assert_eq!(pods.status(&others[2]).await.unwrap().exit_code, 137);
    assert_eq!(pods.status(&others[1]).await.unwrap().state(), cri::ContainerState::ContainerRunning);
    // Nor does the rest of the pod need the runtime to end.
    let begun = Instant::now();
    pods.remove_pod(&pod).await.unwrap();
    assert!(begun.elapsed() < bound(), "{:?}", begun.elapsed());
    setup.before.wait(&setup.node, &setup.faults).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_hangs_is_done_in_the_end() {
    let setup = setup("").await;
    let pods = &setup.pods;
    let (pod, ends) = sleeper(pods, "one").await;
    let well = pods.create(&pod, "one", pods.container("well", "exec sleep 1000")).await.unwrap();
    pods.start(&well, None).await.unwrap();
    setup.faults.hold("runc-delete").unwrap();
    let begun = Instant::now();
    pods.stop(&ends, 0).await.unwrap();
    assert!(begun.elapsed() < bound(), "{:?}", begun.elapsed());
    assert_eq!(pods.status(&ends).await.unwrap().state(), cri::ContainerState::ContainerExited);
    assert_eq!(pods.status(&well).await.unwrap().state(), cri::ContainerState::ContainerRunning);
    // Whoever removes is answered in bounded time, and what fails is gone on with.
    let begun = Instant::now();
    let error = pods.remove_pod(&pod).await.unwrap_err();
    // Which limit comes first, the sandbox's or that of the runtime's end, is chance.
    assert!(error.message().starts_with("stopping sandbox"), "{error}");
    assert!(begun.elapsed() < bound(), "{:?}", begun.elapsed());
    setup.faults.release("runc-delete");
    eventually("the pod to be gone", async || pods.list().await.unwrap().is_empty()).await;
    setup.before.wait(&setup.node, &setup.faults).unwrap();
}

/// gVisor's runtime may not have seen yet that a container has ended, which its shim has told of.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_is_refused_at_first() {
    let setup = setup("").await;
    let pods = &setup.pods;
    let (pod, id) = sleeper(pods, "one").await;
    let refused = |before: usize| setup.faults.count("runc-delete") >= before + 2;
    let before = setup.faults.count("runc-delete");
    setup.faults.fail_once("runc-delete").unwrap();
    pods.stop(&id, 0).await.unwrap();
    eventually("the delete to be tried again", async || refused(before)).await;
    let before = setup.faults.count("runc-delete");
    setup.faults.fail_once("runc-delete").unwrap();
    pods.remove_pod(&pod).await.unwrap();
    assert!(refused(before));
    setup.before.wait(&setup.node, &setup.faults).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_fails_or_hangs_for_good() {
    let setup = setup("").await;
    let pods = &setup.pods;
    let (pod, neighbour) = sleeper(pods, "one").await;
    let make = async |name: &str| pods.create(&pod, "one", pods.container(name, "exec sleep 1000")).await.unwrap();

    setup.faults.fail("runc-create").unwrap();
    let failed = make("failed").await;
    let error = pods.start(&failed, None).await.unwrap_err();
    assert!(error.message().contains("bin/runc did not terminate successfully: exit status 1"), "{error}");
    let ended = pods.status(&failed).await.unwrap();
    assert_eq!((ended.state(), ended.reason.as_str()), (cri::ContainerState::ContainerExited, "StartError"));
    assert!(ended.message.contains("exit status 1"), "{}", ended.message);
    let error = pods.run(pods.config("two"), "").await.unwrap_err();
    assert!(error.message().contains("exit status 1"), "{error}");
    assert_eq!(pods.list().await.unwrap().len(), 1);
    setup.faults.release("runc-create");

    // Who removes the pod meanwhile is told what is waited for, and joins by asking again.
    setup.faults.hold("runc-create").unwrap();
    let hung = make("hung").await;
    let soon = Some(soon());
    let late = pods.start(&hung, soon).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    let late = pods.remove_pod_within(&pod, soon).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(late.message().contains("still waiting for other work on the pod"), "{late}");
    assert_eq!(pods.status(&neighbour).await.unwrap().state(), cri::ContainerState::ContainerRunning);
    let again = pods.remove_pod(&pod);
    setup.faults.release("runc-create");
    again.await.unwrap();
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
    assert!(begun.elapsed() < bound(), "{:?}", begun.elapsed());
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
    assert!(begun.elapsed() < bound(), "{:?}", begun.elapsed());
    // Nobody else is held up, and the same path is refused without another look.
    let well = pods.create(&pod, "one", with("well", setup.node.path("volume").as_path())).await.unwrap();
    pods.start(&well, None).await.unwrap();
    let begun = Instant::now();
    let error = pods.create(&pod, "one", with("frozen", &inside)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("has not answered for"), "{error}");
    assert!(begun.elapsed() < soon(), "{:?}", begun.elapsed());
    let (_, info) = pods.node_status().await.unwrap();
    assert!(info["stuckPaths"].contains(inside.to_str().unwrap()), "{}", info["stuckPaths"]);

    volume.freeze(false);
    eventually("the path to answer", async || pods.create(&pod, "one", with("frozen", &inside)).await.is_ok()).await;
    pods.remove_pod(&pod).await.unwrap();
    setup.before.wait(&setup.node, &setup.faults).unwrap();
}
