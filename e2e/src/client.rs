//! A plain CRI client for tests about faults: pods and containers by name, and waiting for what comes by itself.

use std::{collections::BTreeMap, time::Duration};

use kevel_proto::runtime::v1 as cri;
use tonic::{Request, Status, transport::Channel};

use crate::{Node, node::pod_metadata, patience};

/// The runtime service of a node.
pub type Runtime = cri::runtime_service_client::RuntimeServiceClient<Channel>;

/// How many seconds a test waits for what comes by itself.
const PATIENCE: u64 = 90;

/// A client of one node.
#[derive(Clone)]
pub struct Client {
    /// For calls that have no method here.
    pub runtime: Runtime,
    pod: cri::PodSandboxConfig,
    image: String,
}

impl Client {
    /// Connects to a node whose containers are made from `image`, which is pulled.
    pub async fn of(node: &Node, image: &str) -> anyhow::Result<Self> {
        let (runtime, mut images) = node.cri().await?;
        let spec = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
        images.pull_image(cri::PullImageRequest { image: Some(spec), ..Default::default() }).await?;
        Ok(Self { runtime, pod: node.pod(""), image: image.to_owned() })
    }

    /// Connects again, to a daemon that was started again.
    pub async fn reconnect(&mut self, node: &Node) -> anyhow::Result<()> {
        (self.runtime, _) = node.cri().await?;
        Ok(())
    }

    /// What a pod of that name is made from.
    pub fn config(&self, name: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig { metadata: Some(pod_metadata(name)), ..self.pod.clone() }
    }

    /// RunPodSandbox; the answer is the pod's id.
    pub async fn run(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String, Status> {
        self.run_within(config, handler, None).await
    }

    /// RunPodSandbox by a caller who waits so long.
    pub async fn run_within(
        &self,
        config: cri::PodSandboxConfig,
        handler: &str,
        limit: Option<Duration>,
    ) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        let answer = self.runtime.clone().run_pod_sandbox(patient(request, limit)).await?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    /// What a container of that name is made from: `sh -c script`.
    pub fn container(&self, name: &str, script: &str) -> cri::ContainerConfig {
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: self.image.clone(), ..Default::default() }),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            ..Default::default()
        }
    }

    /// CreateContainer; the answer is its id.
    pub async fn create(&self, pod: &str, name: &str, config: cri::ContainerConfig) -> Result<String, Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.config(name)),
        };
        Ok(self.runtime.clone().create_container(request).await?.into_inner().container_id)
    }

    /// StartContainer.
    pub async fn start(&self, id: &str, limit: Option<Duration>) -> Result<(), Status> {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().start_container(patient(request, limit)).await.map(drop)
    }

    /// ExecSync of a script: its exit code, and what it said on both streams.
    pub async fn exec(&self, id: &str, script: &str) -> Result<(i32, String), Status> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: i64::try_from(patience(30).as_secs()).unwrap_or(i64::MAX),
        };
        let said = self.runtime.clone().exec_sync(request).await?.into_inner();
        let both = [said.stdout, said.stderr].concat();
        Ok((said.exit_code, String::from_utf8_lossy(&both).trim().to_owned()))
    }

    /// The status of a container once it has ended.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn ended(&self, id: &str) -> cri::ContainerStatus {
        let mut last = cri::ContainerStatus::default();
        eventually("a container to end", async || {
            last = self.status(id).await.unwrap_or_default();
            last.state() == cri::ContainerState::ContainerExited
        })
        .await;
        last
    }

    /// StopContainer.
    pub async fn stop(&self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        self.runtime.clone().stop_container(request).await.map(drop)
    }

    /// StopPodSandbox.
    pub async fn stop_pod(&self, id: &str) -> Result<(), Status> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().stop_pod_sandbox(request).await.map(drop)
    }

    /// RemovePodSandbox.
    pub async fn remove_pod(&self, id: &str) -> Result<(), Status> {
        self.remove_pod_within(id, None).await
    }

    /// RemovePodSandbox by a caller who waits so long.
    pub async fn remove_pod_within(&self, id: &str, limit: Option<Duration>) -> Result<(), Status> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().remove_pod_sandbox(patient(request, limit)).await.map(drop)
    }

    /// ListPodSandbox.
    pub async fn list(&self) -> Result<Vec<cri::PodSandbox>, Status> {
        let request = cri::ListPodSandboxRequest::default();
        Ok(self.runtime.clone().list_pod_sandbox(request).await?.into_inner().items)
    }

    /// PodSandboxStatus, verbose or not.
    pub async fn pod_status(&self, id: &str, verbose: bool) -> Result<cri::PodSandboxStatusResponse, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        Ok(self.runtime.clone().pod_sandbox_status(request).await?.into_inner())
    }

    /// ContainerStatus.
    pub async fn status(&self, id: &str) -> Result<cri::ContainerStatus, Status> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        Ok(self.runtime.clone().container_status(request).await?.into_inner().status.unwrap_or_default())
    }

    /// The verbose status of the node: conditions by type, with whether they hold and why not, and the details.
    pub async fn node_status(&self) -> Result<(BTreeMap<String, (bool, String)>, BTreeMap<String, String>), Status> {
        let answer = self.runtime.clone().status(cri::StatusRequest { verbose: true }).await?.into_inner();
        let conditions = answer.status.unwrap_or_default().conditions.into_iter();
        let conditions = conditions.map(|one| (one.r#type, (one.status, one.message)));
        Ok((conditions.collect(), answer.info.into_iter().collect()))
    }
}

fn patient<T>(message: T, limit: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(limit) = limit {
        request.set_timeout(limit);
    }
    request
}

/// Waits for what comes by itself.
///
/// # Panics
/// When it does not come.
pub async fn eventually(what: &str, mut state: impl AsyncFnMut() -> bool) {
    let limit = patience(PATIENCE);
    let end = tokio::time::Instant::now() + limit;
    while !state().await {
        assert!(tokio::time::Instant::now() < end, "waited {limit:?} for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
