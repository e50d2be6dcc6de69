//! A plain CRI client, as kubelet is one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use kevel_proto::runtime::v1 as cri;
use tonic::transport::{Channel, Endpoint};

/// Longer than any call takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two attempts to reach a daemon that starts.
const ATTEMPT: Duration = Duration::from_millis(1);

/// A process that ends at once on SIGTERM.
const SCRIPT: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// A connection to a runtime. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) runtime: cri::runtime_service_client::RuntimeServiceClient<Channel>,
    images: cri::image_service_client::ImageServiceClient<Channel>,
}

impl Client {
    /// Connects as soon as the runtime answers Version; one that starts is waited for.
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            let error = match Self::attempt(socket).await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if begun.elapsed() > LIMIT {
                return Err(error.context(format!("{} does not answer", socket.display())));
            }
            tokio::time::sleep(ATTEMPT).await;
        }
    }

    async fn attempt(socket: &Path) -> anyhow::Result<Self> {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move {
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tokio::net::UnixStream::connect(socket).await?))
            }
        });
        let endpoint = Endpoint::from_static("http://localhost").timeout(LIMIT);
        let channel = endpoint.connect_with_connector(connector).await?;
        let mut client = Self {
            runtime: cri::runtime_service_client::RuntimeServiceClient::new(channel.clone()),
            images: cri::image_service_client::ImageServiceClient::new(channel).max_decoding_message_size(64 << 20),
        };
        client.runtime.version(cri::VersionRequest::default()).await?;
        Ok(client)
    }

    pub(crate) async fn pull(&mut self, image: &str) -> anyhow::Result<()> {
        let request = cri::PullImageRequest { image: Some(spec(image)), ..Default::default() };
        self.images.pull_image(request).await.with_context(|| format!("pulling {image}"))?;
        Ok(())
    }

    pub(crate) async fn remove_image(&mut self, image: &str) -> anyhow::Result<()> {
        let request = cri::RemoveImageRequest { image: Some(spec(image)) };
        self.images.remove_image(request).await.with_context(|| format!("removing {image}"))?;
        Ok(())
    }

    pub(crate) async fn run_pod(&mut self, pod: &cri::PodSandboxConfig) -> anyhow::Result<String> {
        let request = cri::RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
        Ok(self.runtime.run_pod_sandbox(request).await.context("RunPodSandbox")?.into_inner().pod_sandbox_id)
    }

    pub(crate) async fn create(
        &mut self,
        pod_id: &str,
        pod: &cri::PodSandboxConfig,
        image: &str,
    ) -> anyhow::Result<String> {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(spec(image)),
            command: ["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
            log_path: "main.log".to_owned(),
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources {
                    cpu_shares: 128,
                    memory_limit_in_bytes: 128 << 20,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        };
        Ok(self.runtime.create_container(request).await.context("CreateContainer")?.into_inner().container_id)
    }

    pub(crate) async fn start(&mut self, id: &str) -> anyhow::Result<()> {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        self.runtime.start_container(request).await.context("StartContainer")?;
        Ok(())
    }

    pub(crate) async fn exec_true(&mut self, id: &str) -> anyhow::Result<()> {
        let request =
            cri::ExecSyncRequest { container_id: id.to_owned(), cmd: vec!["/bin/true".to_owned()], timeout: 60 };
        let answer = self.runtime.exec_sync(request).await.context("ExecSync")?.into_inner();
        if answer.exit_code != 0 {
            bail!("/bin/true ended with {}: {}", answer.exit_code, String::from_utf8_lossy(&answer.stderr));
        }
        Ok(())
    }

    pub(crate) async fn stop(&mut self, id: &str) -> anyhow::Result<()> {
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout: 30 };
        self.runtime.stop_container(request).await.context("StopContainer")?;
        Ok(())
    }

    pub(crate) async fn remove(&mut self, id: &str) -> anyhow::Result<()> {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        self.runtime.remove_container(request).await.context("RemoveContainer")?;
        Ok(())
    }

    pub(crate) async fn stop_pod(&mut self, id: &str) -> anyhow::Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.stop_pod_sandbox(request).await.context("StopPodSandbox")?;
        Ok(())
    }

    pub(crate) async fn remove_pod(&mut self, id: &str) -> anyhow::Result<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.remove_pod_sandbox(request).await.context("RemovePodSandbox")?;
        Ok(())
    }

    /// How many pods are ready.
    pub(crate) async fn pods(&mut self) -> anyhow::Result<usize> {
        let ready = cri::PodSandboxState::SandboxReady as i32;
        Ok(self.pod_list().await?.iter().filter(|pod| pod.state == ready).count())
    }

    pub(crate) async fn pod_list(&mut self) -> anyhow::Result<Vec<cri::PodSandbox>> {
        let answer = self.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await;
        Ok(answer.context("ListPodSandbox")?.into_inner().items)
    }

    /// How many containers run.
    pub(crate) async fn containers(&mut self) -> anyhow::Result<usize> {
        let running = cri::ContainerState::ContainerRunning as i32;
        let answer = self.runtime.list_containers(cri::ListContainersRequest::default()).await;
        let list = answer.context("ListContainers")?.into_inner().containers;
        Ok(list.iter().filter(|container| container.state == running).count())
    }

    /// Of how many containers there are statistics.
    pub(crate) async fn stats(&mut self) -> anyhow::Result<usize> {
        let answer = self.runtime.list_container_stats(cri::ListContainerStatsRequest::default()).await;
        let list = answer.context("ListContainerStats")?.into_inner().stats;
        Ok(list.iter().filter(|stats| stats.memory.is_some()).count())
    }

    /// Of how many pods there are statistics.
    pub(crate) async fn pod_stats(&mut self) -> anyhow::Result<usize> {
        let answer = self.runtime.list_pod_sandbox_stats(cri::ListPodSandboxStatsRequest::default()).await;
        let list = answer.context("ListPodSandboxStats")?.into_inner().stats;
        Ok(list.iter().filter(|stats| stats.linux.as_ref().is_some_and(|linux| linux.memory.is_some())).count())
    }
}

fn spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.to_owned(), ..Default::default() }
}
