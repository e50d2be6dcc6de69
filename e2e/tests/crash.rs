//! The daemon is killed in the middle of everything: while a plugin or the runtime is held at a chosen point of an
//! operation, and at moments chosen by a seed. After a restart every pod is there with its right state and exit codes,
//! what was half-done is finished or undone, the retry succeeds, and in the end nothing is left.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{fs, future::Future, time::Duration};

use kevel_e2e::{Faults, Ledger, Node, Registry, eventually, patience, until};
use kevel_proto::runtime::v1 as cri;
use tonic::{Status, transport::Channel};

type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;
type Images = cri::image_service_client::ImageServiceClient<Channel>;
type Done = Result<String, Status>;

struct Setup {
    registry: Registry,
    // Before the faults: what is held lets go when they are dropped, and the node's end waits for it.
    node: Node,
    faults: Faults,
    runtime: Runtime,
    images: Images,
    /// A pod that nothing happens to: one container runs, one has ended with code 7.
    bystander: (String, String, String),
    /// What the node has with the bystander alone.
    before: Ledger,
}

/// An operation to be interrupted; what it needs is made first.
#[derive(Clone, Copy, Debug)]
enum Operation {
    RunPod,
    CreateContainer,
    StartContainer,
    StopContainer,
    RemoveContainer,
    StopPod,
    RemovePod,
}

use Operation::*;

/// When a held program goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Release {
    /// Without a daemon.
    BeforeRestart,
    /// When the next daemon serves.
    AfterRestart,
}

async fn setup() -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let faults = Faults::new().unwrap();
    let options = registry.node_options();
    let mut node = faults.node(options, "", "").unwrap();
    node.launch().unwrap();
    let (runtime, images) = node.cri().await.unwrap();
    let (bystander, before) = (Default::default(), Ledger::default());
    let mut setup = Setup { registry, node, faults, runtime, images, bystander, before };
    let request = cri::PullImageRequest { image: Some(setup.image()), ..Default::default() };
    setup.images.pull_image(request).await.unwrap();
    let pod = run_pod(setup.runtime.clone(), setup.pod("bystander")).await.unwrap();
    let runs = setup.container(&pod, "bystander", "runs", "exec sleep 1000").await;
    let ended = setup.container(&pod, "bystander", "ended", "exit 7").await;
    setup.start(&runs).await;
    setup.start(&ended).await;
    setup.wait_for(&ended, cri::ContainerState::ContainerExited).await;
    setup.bystander = (pod, runs, ended);
    setup.before = settled(&setup);
    setup
}

/// The node when nothing changes any more.
fn settled(setup: &Setup) -> Ledger {
    let mut last = Ledger::default();
    let same = until("the node to be at rest", || {
        let now = Ledger::of(&setup.node, &setup.faults).ok()?;
        let same = now == last;
        last = now;
        same.then_some(())
    });
    same.unwrap();
    last
}

async fn run_pod(mut runtime: Runtime, config: cri::PodSandboxConfig) -> Done {
    let request = cri::RunPodSandboxRequest { config: Some(config), ..Default::default() };
    Ok(runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
}

impl Setup {
    fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        self.node.pod(name)
    }

    fn image(&self) -> cri::ImageSpec {
        cri::ImageSpec { image: self.registry.reference("busybox").to_owned(), ..Default::default() }
    }

    fn container_request(&self, pod: &str, pod_name: &str, name: &str, script: &str) -> cri::CreateContainerRequest {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(self.image()),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{pod_name}-{name}.log"),
            ..Default::default()
        };
        cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.pod(pod_name)),
        }
    }

    async fn container(&mut self, pod: &str, pod_name: &str, name: &str, script: &str) -> String {
        let request = self.container_request(pod, pod_name, name, script);
        self.runtime.create_container(request).await.unwrap().into_inner().container_id
    }

    async fn start(&mut self, id: &str) {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        self.runtime.start_container(request).await.unwrap();
    }

    async fn status(&mut self, id: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    async fn wait_for(&mut self, id: &str, state: cri::ContainerState) {
        eventually(&format!("container {id} to be {state:?}"), async || self.status(id).await.state() == state).await;
    }

    async fn pods(&mut self) -> Vec<cri::PodSandbox> {
        self.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner().items
    }

    /// Kills the daemon, lets go what is held, starts the daemon, as asked for.
    async fn crash(&mut self, point: &str, release: Release) {
        self.node.kill().unwrap();
        if release == Release::BeforeRestart {
            self.faults.release(point);
        }
        self.node.launch().unwrap();
        (self.runtime, self.images) = self.node.cri().await.unwrap();
        self.faults.release(point);
    }

    /// What `operation` works on: a pod, running unless it is to be made, and a container in the state before.
    async fn prepare(&mut self, operation: Operation, name: &str) -> (String, String) {
        if matches!(operation, RunPod) {
            return Default::default();
        }
        let pod = run_pod(self.runtime.clone(), self.pod(name)).await.unwrap();
        if matches!(operation, CreateContainer) {
            return (pod, String::new());
        }
        let script = "trap 'exit 3' TERM; echo begun; while :; do sleep 0.05; done";
        let container = self.container(&pod, name, "main", script).await;
        if !matches!(operation, StartContainer) {
            self.start(&container).await;
            let log = self.node.path(&format!("logs/{name}-main.log"));
            until("the container to run", || fs::read_to_string(&log).ok()?.contains("begun").then_some(())).unwrap();
        }
        (pod, container)
    }

    fn operate(&self, operation: Operation, name: &str, of: &(String, String)) -> impl Future<Output = Done> + use<> {
        let mut runtime = self.runtime.clone();
        let ((pod, container), config) = (of.clone(), self.pod(name));
        let create = self.container_request(&pod, name, "main", "exec sleep 1000");
        async move {
            let (container_id, pod_sandbox_id) = (container, pod);
            match operation {
                RunPod => return run_pod(runtime, config).await,
                CreateContainer => return Ok(runtime.create_container(create).await?.into_inner().container_id),
                StartContainer => {
                    runtime.start_container(cri::StartContainerRequest { container_id }).await?;
                }
                StopContainer => {
                    runtime.stop_container(cri::StopContainerRequest { container_id, timeout: 30 }).await?;
                }
                RemoveContainer => {
                    runtime.remove_container(cri::RemoveContainerRequest { container_id }).await?;
                }
                StopPod => {
                    runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id }).await?;
                }
                RemovePod => {
                    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await?;
                }
            }
            Ok(String::new())
        }
    }

    /// The retry succeeds, and what the operation promises is so.
    async fn retry(&mut self, operation: Operation, name: &str, of: &(String, String), what: &str) {
        let done = self.operate(operation, name, of).await;
        let made = done.unwrap_or_else(|status| panic!("{what}: the retry failed: {status}"));
        match operation {
            RunPod => {
                let pods = self.pods().await;
                let pod = pods.iter().find(|pod| pod.id == made).unwrap_or_else(|| panic!("{what}: no pod {made}"));
                assert_eq!(pod.state(), cri::PodSandboxState::SandboxReady, "{what}");
            }
            CreateContainer => self.start(&made).await,
            StartContainer => {
                assert_eq!(self.status(&of.1).await.state(), cri::ContainerState::ContainerRunning, "{what}");
                let log = self.node.path(&format!("logs/{name}-main.log"));
                until("the log", || fs::read_to_string(&log).ok()?.contains("begun").then_some(())).unwrap();
            }
            StopContainer => {
                let status = self.status(&of.1).await;
                assert_eq!(status.state(), cri::ContainerState::ContainerExited, "{what}");
                assert_eq!(status.exit_code, 3, "{what}: it ended by itself within its grace");
            }
            StopPod => {
                let pods = self.pods().await;
                let ready = pods.iter().any(|pod| pod.id == of.0 && pod.state() == cri::PodSandboxState::SandboxReady);
                assert!(!ready, "{what}");
            }
            RemoveContainer | RemovePod => {}
        }
    }

    /// The bystander is as it was: after every restart.
    async fn check_bystander(&mut self, what: &str) {
        let (pod, runs, ended) = self.bystander.clone();
        let pods = self.pods().await;
        let state = pods.iter().find(|one| one.id == pod).map(cri::PodSandbox::state);
        assert_eq!(state, Some(cri::PodSandboxState::SandboxReady), "{what}: {pods:?}");
        assert_eq!(self.status(&runs).await.state(), cri::ContainerState::ContainerRunning, "{what}");
        let status = self.status(&ended).await;
        assert_eq!((status.state(), status.exit_code), (cri::ContainerState::ContainerExited, 7), "{what}");
        let cmd = ["echo", "here"].map(str::to_owned).to_vec();
        let said = self.runtime.exec_sync(cri::ExecSyncRequest { container_id: runs, cmd, timeout: 30 }).await;
        assert_eq!(said.unwrap().into_inner().stdout, b"here\n", "{what}");
    }

    /// Removes every pod but the bystander; then the node has what it had before.
    async fn clean_up(&mut self, what: &str) {
        for pod in self.pods().await.into_iter().filter(|pod| pod.id != self.bystander.0) {
            let pod_sandbox_id = pod.id;
            let request = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            self.runtime.stop_pod_sandbox(request).await.unwrap();
            self.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
        }
        self.before.wait(&self.node, &self.faults).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }

    /// One operation, killed while `point` is held.
    async fn kill_at(&mut self, operation: Operation, point: &str, release: Release) {
        let what = format!("{operation:?} at {point}, released {release:?}");
        let name = format!("{operation:?}-{point}-{release:?}").to_lowercase();
        let of = self.prepare(operation, &name).await;
        self.faults.hold(point).unwrap();
        let request = tokio::spawn(self.operate(operation, &name, &of));
        self.faults.reached(point).unwrap_or_else(|error| panic!("{what}: {error}"));
        self.crash(point, release).await;
        let lost = request.await.unwrap();
        assert!(lost.is_err(), "{what}: it was answered by a dead daemon: {lost:?}");
        self.check_bystander(&what).await;
        self.retry(operation, &name, &of, &what).await;
        self.clean_up(&what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_a_program_is_held() {
    let mut setup = setup().await;
    for (operation, point) in [
        (RunPod, "cni-ADD"),
        (RunPod, "runc-create"),
        (RunPod, "runc-start"),
        (StartContainer, "runc-create"),
        (StartContainer, "runc-start"),
        (StopContainer, "runc-kill"),
        (RemoveContainer, "runc-delete"),
        (RemoveContainer, "runc-kill"),
        (StopPod, "cni-DEL"),
        (StopPod, "runc-delete"),
        (RemovePod, "cni-DEL"),
    ] {
        for release in [Release::BeforeRestart, Release::AfterRestart] {
            setup.kill_at(operation, point, release).await;
        }
    }
}

/// A generator of moments that are the same in every run.
struct Moments(u64);

impl Moments {
    /// Before a limit in microseconds, which a slow machine has more of.
    fn next(&mut self, below: u64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        patience((self.0 >> 33) % below) / 1_000_000
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment() {
    let mut setup = setup().await;
    let mut moments = Moments(3);
    for round in 0..3 {
        for (operation, below) in [
            (RunPod, 150_000),
            (CreateContainer, 40_000),
            (StartContainer, 120_000),
            (StopContainer, 80_000),
            (RemoveContainer, 120_000),
            (StopPod, 120_000),
            (RemovePod, 150_000),
        ] {
            let moment = moments.next(below);
            let what = format!("{operation:?} killed after {moment:?}");
            let name = format!("{operation:?}-{round}").to_lowercase();
            let of = setup.prepare(operation, &name).await;
            let request = tokio::spawn(setup.operate(operation, &name, &of));
            tokio::time::sleep(moment).await;
            setup.crash("none", Release::BeforeRestart).await;
            let _ = request.await.unwrap(); // answered or not, the retry has to succeed
            setup.check_bystander(&what).await;
            setup.retry(operation, &name, &of, &what).await;
            setup.clean_up(&what).await;
        }
    }
}
