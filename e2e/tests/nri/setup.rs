//! What the tests of NRI share: a node with an image, plugins beside it, pods and containers.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use kevel_e2e::{Node, NodeOptions, Registry, find, patience, until};
use kevel_proto::runtime::v1 as cri;
use serde_json::{Value, json};
use tonic::{Status, transport::Channel};

pub(crate) type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;

pub(crate) struct Setup {
    pub(crate) registry: Registry,
    pub(crate) node: Node,
    pub(crate) runtime: Runtime,
    pub(crate) plugins: Vec<Child>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        for plugin in &mut self.plugins {
            let _ = plugin.kill();
            let _ = plugin.wait();
        }
    }
}

pub(crate) async fn setup(nri: &str) -> Setup {
    setup_within(2, nri).await
}

/// A node on which plugins have so many seconds to answer.
pub(crate) async fn setup_within(seconds: u64, nri: &str) -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let (joining, answering) = (patience(5).as_secs(), patience(seconds).as_secs());
    let nri = format!("plugin_registration_timeout = \"{joining}s\"\nplugin_request_timeout = \"{answering}s\"\n{nri}");
    let options = NodeOptions { nri, ..registry.node_options() };
    let node = Node::start(&options).unwrap();
    let (runtime, mut images) = node.cri().await.unwrap();
    let image = cri::ImageSpec { image: registry.reference("busybox").to_owned(), ..Default::default() };
    images.pull_image(cri::PullImageRequest { image: Some(image), ..Default::default() }).await.unwrap();
    Setup { registry, node, runtime, plugins: Vec::new() }
}

impl Setup {
    pub(crate) fn log(&self, plugin: &str) -> PathBuf {
        self.node.path(&format!("{plugin}.jsonl"))
    }

    /// Starts a plugin that connects, and waits until it is ready.
    pub(crate) fn plugin(&mut self, index: &str, name: &str, script: Value) {
        let before = self.ready(index, name);
        self.spawn(index, name, script);
        until("the plugin to be ready", || (self.ready(index, name) > before).then_some(())).unwrap();
    }

    pub(crate) fn spawn(&mut self, index: &str, name: &str, script: Value) {
        let mut all = json!({
            "Socket": self.node.path("nri.sock"), "Name": name, "Index": index, "Log": self.log(name),
        });
        all.as_object_mut().unwrap().extend(script.as_object().unwrap().clone());
        let program = find("nriplugin").unwrap();
        let child = Command::new(program).arg(all.to_string()).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        self.plugins.push(child.unwrap());
    }

    /// How often a plugin became ready.
    pub(crate) fn ready(&self, index: &str, name: &str) -> usize {
        let log = self.node.log();
        let lines = log.lines().filter(|line| line.contains("an NRI plugin is ready"));
        lines.filter(|line| line.contains(&format!("{index}-{name}"))).count()
    }

    pub(crate) fn events(&self, plugin: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.log(plugin)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Events by name and by what they are about.
    pub(crate) fn told(&self, plugin: &str) -> Vec<String> {
        let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let about = |event: &Value| match word(event, "Container") {
            container if container.is_empty() => word(event, "Pod"),
            container => container,
        };
        let events = self.events(plugin);
        events.iter().map(|event| format!("{} {}", word(event, "Event"), about(event)).trim().to_owned()).collect()
    }

    pub(crate) fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        self.node.pod(name)
    }

    pub(crate) async fn try_run(&mut self, pod: &cri::PodSandboxConfig) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
        Ok(self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    pub(crate) async fn run(&mut self, pod: &cri::PodSandboxConfig) -> String {
        self.try_run(pod).await.unwrap()
    }

    pub(crate) async fn try_create(
        &mut self,
        id: &str,
        pod: &cri::PodSandboxConfig,
        name: &str,
    ) -> Result<String, Status> {
        let request = self.creation(id, pod, name);
        Ok(self.runtime.create_container(request).await?.into_inner().container_id)
    }

    pub(crate) fn creation(&self, id: &str, pod: &cri::PodSandboxConfig, name: &str) -> cri::CreateContainerRequest {
        let image = cri::ImageSpec { image: self.registry.reference("busybox").to_owned(), ..Default::default() };
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(image),
            command: ["sleep", "1000"].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        cri::CreateContainerRequest {
            pod_sandbox_id: id.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        }
    }

    pub(crate) async fn start(&mut self, id: &str, pod: &cri::PodSandboxConfig, name: &str) -> String {
        let container_id = self.try_create(id, pod, name).await.unwrap();
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        self.runtime.start_container(request).await.unwrap();
        container_id
    }

    pub(crate) async fn exec(&mut self, container_id: &str, script: &str) -> String {
        let request = cri::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: 30,
        };
        let said = self.runtime.exec_sync(request).await.unwrap().into_inner();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    pub(crate) async fn update(&mut self, container_id: &str, memory: i64) {
        let linux = cri::LinuxContainerResources { memory_limit_in_bytes: memory, ..Default::default() };
        let request = cri::UpdateContainerResourcesRequest {
            container_id: container_id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        self.runtime.update_container_resources(request).await.unwrap();
    }

    /// The memory limit that a container's status shows, and the one that its cgroup has.
    pub(crate) async fn memory(&mut self, container_id: &str) -> (i64, i64) {
        let request = cri::ContainerStatusRequest { container_id: container_id.to_owned(), verbose: true };
        let answer = self.runtime.container_status(request).await.unwrap().into_inner();
        let shown = answer.status.unwrap().resources.unwrap().linux.unwrap().memory_limit_in_bytes;
        let info: Value = serde_json::from_str(&answer.info["info"]).unwrap();
        let group = info["runtimeSpec"]["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
        let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];
        let files = ["memory.limit_in_bytes", "memory.max"];
        let limit = roots
            .iter()
            .zip(files)
            .find_map(|(root, file)| fs::read_to_string(format!("{root}{group}/{file}")).ok()?.trim().parse().ok());
        (shown, limit.unwrap_or_default())
    }

    /// How many files a container's first process may have open. One that joins is no witness: Debian's runc sets its limit while
    /// its own Go runtime raises it.
    pub(crate) async fn open_files(&mut self, container_id: &str) -> String {
        let request = cri::ContainerStatusRequest { container_id: container_id.to_owned(), verbose: true };
        let answer = self.runtime.container_status(request).await.unwrap().into_inner();
        let info: Value = serde_json::from_str(&answer.info["info"]).unwrap();
        let limits = fs::read_to_string(format!("/proc/{}/limits", info["pid"])).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    }

    pub(crate) async fn stop_and_remove(&mut self, container_id: &str) {
        let stop = cri::StopContainerRequest { container_id: container_id.to_owned(), timeout: 0 };
        self.runtime.stop_container(stop).await.unwrap();
        let remove = cri::RemoveContainerRequest { container_id: container_id.to_owned() };
        self.runtime.remove_container(remove).await.unwrap();
    }

    pub(crate) async fn remove_pod(&mut self, id: &str) {
        let pod_sandbox_id = id.to_owned();
        let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        self.runtime.stop_pod_sandbox(stop).await.unwrap();
        self.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
    }

    pub(crate) async fn lists(&mut self) -> (usize, usize) {
        let pods = self.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner();
        let containers = self.runtime.list_containers(cri::ListContainersRequest::default()).await.unwrap();
        (pods.items.len(), containers.into_inner().containers.len())
    }

    pub(crate) fn clean(&mut self) {
        for mut plugin in self.plugins.drain(..) {
            plugin.kill().unwrap();
            plugin.wait().unwrap();
        }
        self.node.remove_parent_cgroup();
        self.node.assert_no_leaks().unwrap();
    }
}
