//! Pods over CRI, with a plain client: kubelet's main path on real shims, runc and CNI.
#![expect(clippy::unwrap_used, reason = "a test says where it failed by failing there")]

use std::{collections::BTreeMap, fs};

use kevel_e2e::{Node, Registry, until};
use kevel_proto::runtime::v1 as cri;
use tonic::transport::Channel;

type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;
type Images = cri::image_service_client::ImageServiceClient<Channel>;

struct Setup {
    registry: Registry,
    node: Node,
    runtime: Runtime,
    images: Images,
}

async fn setup() -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let options = registry.node_options();
    let node = Node::start(&options).unwrap();
    let (runtime, images) = node.cri().await.unwrap();
    Setup { registry, node, runtime, images }
}

impl Setup {
    fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            hostname: name.to_owned(),
            dns_config: Some(cri::DnsConfig { servers: vec!["192.0.2.53".to_owned()], ..Default::default() }),
            labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
            ..self.node.pod(name)
        }
    }

    fn image(&self) -> cri::ImageSpec {
        cri::ImageSpec { image: self.registry.reference("busybox").to_owned(), ..Default::default() }
    }

    async fn pull(&mut self) -> String {
        let request = cri::PullImageRequest { image: Some(self.image()), ..Default::default() };
        self.images.pull_image(request).await.unwrap().into_inner().image_ref
    }

    async fn run(&mut self, pod: &cri::PodSandboxConfig) -> String {
        let request = cri::RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
        self.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }

    async fn start(&mut self, id: &str, pod: &cri::PodSandboxConfig, name: &str, script: &str) -> String {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(self.image()),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            ..Default::default()
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: id.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        };
        let container_id = self.runtime.create_container(request).await.unwrap().into_inner().container_id;
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        self.runtime.start_container(request).await.unwrap();
        container_id
    }

    async fn exec(&mut self, container_id: &str, command: &[&str]) -> cri::ExecSyncResponse {
        let request = cri::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 30,
        };
        self.runtime.exec_sync(request).await.unwrap().into_inner()
    }

    async fn status(&mut self, container_id: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: container_id.to_owned(), verbose: false };
        self.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    async fn stop(&mut self, container_id: &str, timeout: i64) {
        let request = cri::StopContainerRequest { container_id: container_id.to_owned(), timeout };
        self.runtime.stop_container(request).await.unwrap();
    }

    async fn remove_pod(&mut self, id: &str) {
        let pod_sandbox_id = id.to_owned();
        let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        self.runtime.stop_pod_sandbox(stop).await.unwrap();
        self.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
    }

    async fn reconnect(&mut self) {
        (self.runtime, self.images) = self.node.cri().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_two_containers_runs_and_leaves_nothing() {
    let mut setup = setup().await;
    let image = setup.pull().await;
    let pod = setup.pod("web");
    let id = setup.run(&pod).await;
    let web = setup.start(&id, &pod, "web", "mkdir /w; echo hi > /w/x; exec httpd -f -p 8080 -h /w").await;
    let clock = setup.start(&id, &pod, "clock", "echo out; echo err >&2; printf end; exec sleep 1000").await;

    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), ..Default::default() };
    let status = setup.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), cri::PodSandboxState::SandboxReady);
    assert!(status.network.unwrap().ip.starts_with("10."));

    // The containers share the pod's network, host name and DNS.
    let page = "until wget -q -O - http://127.0.0.1:8080/x; do sleep 0.1; done";
    let said = setup.exec(&clock, &["sh", "-c", page]).await;
    assert_eq!((said.exit_code, said.stdout.as_slice()), (0, b"hi\n".as_slice()));
    assert_eq!(setup.exec(&clock, &["hostname"]).await.stdout, b"web\n");
    assert_eq!(setup.exec(&clock, &["cat", "/etc/resolv.conf"]).await.stdout, b"nameserver 192.0.2.53\n");
    assert_eq!(setup.exec(&clock, &["sh", "-c", "exit 9"]).await.exit_code, 9);

    // Nothing of a container outlives the node, so that nothing of it need be flushed.
    let mounts = String::from_utf8(setup.exec(&clock, &["cat", "/proc/mounts"]).await.stdout).unwrap();
    let root = mounts.lines().find(|line| line.starts_with("overlay / overlay ")).unwrap();
    assert!(root.split([' ', ',']).any(|option| option.ends_with("volatile")), "{root}");

    let status = setup.status(&web).await;
    assert_eq!((status.state(), status.image_id.as_str()), (cri::ContainerState::ContainerRunning, image.as_str()));
    let log = setup.node.path("logs/clock.log");
    let lines = until("the log", || {
        let text = fs::read_to_string(&log).ok()?;
        (text.lines().count() >= 2).then_some(text)
    });
    let lines = lines.unwrap();
    assert!(lines.contains(" stdout F out\n") && lines.contains(" stderr F err\n"), "{lines}");

    let request = cri::ContainerStatsRequest { container_id: web.clone() };
    let stats = setup.runtime.container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: id.clone() };
    setup.runtime.pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();

    setup.stop(&web, 0).await;
    let status = setup.status(&web).await;
    assert_eq!((status.state(), status.exit_code), (cri::ContainerState::ContainerExited, 137));
    setup.remove_pod(&id).await;
    setup.remove_pod(&id).await; // both calls succeed on what is gone
    let pods = setup.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner().items;
    assert!(pods.is_empty(), "{pods:?}");
    setup.node.remove_parent_cgroup();
    setup.node.assert_no_leaks().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_survive_a_kill_of_the_daemon() {
    let mut setup = setup().await;
    setup.pull().await;
    let pod = setup.pod("stays");
    let id = setup.run(&pod).await;
    let runs = setup.start(&id, &pod, "runs", "exec sleep 1000").await;
    let ends = setup.start(&id, &pod, "ends", "while [ ! -e /go ]; do sleep 0.1; done; exit 5").await;
    setup.exec(&ends, &["touch", "/soon"]).await;
    setup.node.kill().unwrap();
    setup.node.launch().unwrap();
    setup.reconnect().await;

    assert_eq!(setup.status(&runs).await.state(), cri::ContainerState::ContainerRunning);
    assert_eq!(setup.exec(&runs, &["echo", "back"]).await.stdout, b"back\n");
    setup.exec(&ends, &["touch", "/go"]).await;
    for _ in 0..600 {
        if setup.status(&ends).await.state() == cri::ContainerState::ContainerExited {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(setup.status(&ends).await.exit_code, 5);
    setup.remove_pod(&id).await;
    setup.node.remove_parent_cgroup();
    setup.node.assert_no_leaks().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_shown_and_removed() {
    let mut setup = setup().await;
    let id = setup.pull().await;
    let request = || cri::ImageStatusRequest { image: Some(setup.image()), ..Default::default() };
    let first = request();
    let image = setup.images.image_status(first).await.unwrap().into_inner().image.unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.repo_tags, [setup.registry.reference("busybox")]);
    assert!(image.size > 0);
    let request = cri::RemoveImageRequest { image: Some(setup.image()) };
    setup.images.remove_image(request.clone()).await.unwrap();
    setup.images.remove_image(request).await.unwrap();
    let request = cri::ImageStatusRequest { image: Some(setup.image()), ..Default::default() };
    assert!(setup.images.image_status(request).await.unwrap().into_inner().image.is_none());
}
