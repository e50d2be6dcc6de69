//! The few calls that most tests of pods make, over a plain CRI client. Answers that a test looks into more closely it asks for
//! itself, with the clients in here.

use kevel_proto::runtime::v1 as cri;
use tonic::transport::Channel;

use crate::{Node, node::pod_metadata};

/// A CRI client with the image that its containers run.
pub struct Pods {
    /// The runtime service.
    pub runtime: cri::runtime_service_client::RuntimeServiceClient<Channel>,
    /// The image service.
    pub images: cri::image_service_client::ImageServiceClient<Channel>,
    image: cri::ImageSpec,
    pod: cri::PodSandboxConfig,
}

impl Pods {
    /// Connects to a node. Pods are put below the cgroup that carries the node's mark.
    pub async fn of(node: &Node, image: &str) -> anyhow::Result<Self> {
        let (runtime, images) = node.cri().await?;
        let image = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
        Ok(Self { runtime, images, image, pod: node.pod("") })
    }

    /// What a pod of this name is made from.
    pub fn config(&self, name: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(pod_metadata(name)),
            hostname: name.to_owned(),
            annotations: [("kevel.test/pod".to_owned(), name.to_owned())].into(),
            ..self.pod.clone()
        }
    }

    /// Pulls the image, for a handler; answers its id.
    pub async fn pull(&mut self, handler: &str) -> Result<String, tonic::Status> {
        let image = cri::ImageSpec { runtime_handler: handler.to_owned(), ..self.image.clone() };
        let request = cri::PullImageRequest { image: Some(image), ..Default::default() };
        Ok(self.images.pull_image(request).await?.into_inner().image_ref)
    }

    /// Runs a pod by a handler; answers its id.
    pub async fn run(&mut self, name: &str, handler: &str) -> Result<String, tonic::Status> {
        let request =
            cri::RunPodSandboxRequest { config: Some(self.config(name)), runtime_handler: handler.to_owned() };
        Ok(self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    /// Creates and starts a container that runs a script; answers its id.
    pub async fn start(&mut self, pod: (&str, &str), name: &str, script: &str) -> Result<String, tonic::Status> {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(self.image.clone()),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            ..Default::default()
        };
        let (pod_sandbox_id, pod_name) = pod;
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod_sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.config(pod_name)),
        };
        let container_id = self.runtime.create_container(request).await?.into_inner().container_id;
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        self.runtime.start_container(request).await?;
        Ok(container_id)
    }

    /// Runs a script in a container; answers its output, or an error with everything when it fails.
    pub async fn exec(&mut self, container_id: &str, script: &str) -> anyhow::Result<String> {
        let request = cri::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: 60,
        };
        let said = self.runtime.exec_sync(request).await?.into_inner();
        anyhow::ensure!(said.exit_code == 0, "{script:?} ended with {}: {said:?}", said.exit_code);
        Ok(String::from_utf8(said.stdout)?)
    }

    /// A container's status.
    pub async fn status(&mut self, container_id: &str) -> Result<cri::ContainerStatus, tonic::Status> {
        let request = cri::ContainerStatusRequest { container_id: container_id.to_owned(), verbose: false };
        Ok(self.runtime.container_status(request).await?.into_inner().status.unwrap_or_default())
    }

    /// Stops a container at once.
    pub async fn stop(&mut self, container_id: &str) -> Result<(), tonic::Status> {
        let request = cri::StopContainerRequest { container_id: container_id.to_owned(), timeout: 0 };
        self.runtime.stop_container(request).await.map(drop)
    }

    /// Stops and removes a pod.
    pub async fn remove(&mut self, pod_sandbox_id: &str) -> Result<(), tonic::Status> {
        let pod_sandbox_id = pod_sandbox_id.to_owned();
        let stop = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        self.runtime.stop_pod_sandbox(stop).await?;
        self.runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await.map(drop)
    }
}
