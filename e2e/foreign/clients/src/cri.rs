//! A pod with the crate `k8s-cri`, as kubelet would run it.

use containerd_client::tonic::transport::Channel;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatusRequest, CreateContainerRequest,
    ExecSyncRequest, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, LinuxPodSandboxConfig, ListContainersRequest,
    ListPodSandboxRequest, PodSandboxConfig, PodSandboxMetadata, PodSandboxState, PodSandboxStatusRequest,
    PullImageRequest, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StatusRequest, StopContainerRequest, StopPodSandboxRequest, VersionRequest,
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};

use crate::{Result, same};

/// Pulls, runs, looks, stops and removes.
pub async fn run(channel: Channel, image: &str, cgroup: &str) -> Result<()> {
    let mut runtime = RuntimeServiceClient::new(channel.clone());
    let mut images = ImageServiceClient::new(channel);
    let version = runtime.version(VersionRequest::default()).await?.into_inner();
    same("runtime api", version.runtime_api_version.as_str(), "v1")?;
    let status = runtime.status(StatusRequest::default()).await?.into_inner().status.unwrap_or_default();
    let ready = status.conditions.iter().any(|one| one.r#type == "RuntimeReady" && one.status);
    same("RuntimeReady", ready, true)?;

    let spec = ImageSpec { image: image.to_owned(), ..Default::default() };
    let pull = PullImageRequest { image: Some(spec.clone()), ..Default::default() };
    let id = images.pull_image(pull).await?.into_inner().image_ref;
    let status = ImageStatusRequest { image: Some(spec.clone()), ..Default::default() };
    let found = images.image_status(status).await?.into_inner().image.unwrap_or_default();
    same("image id", found.id, id)?;
    images.image_fs_info(ImageFsInfoRequest::default()).await?;

    let metadata =
        PodSandboxMetadata { name: "rust".into(), uid: "rust-1".into(), namespace: "default".into(), attempt: 0 };
    let linux = LinuxPodSandboxConfig { cgroup_parent: cgroup.to_owned(), ..Default::default() };
    let pod = PodSandboxConfig {
        metadata: Some(metadata),
        hostname: "rust".into(),
        linux: Some(linux),
        ..Default::default()
    };
    let request = RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
    let pod_sandbox_id = runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod_sandbox_id.clone(), verbose: true };
    let status = runtime.pod_sandbox_status(request).await?.into_inner().status.unwrap_or_default();
    same("state of the pod", status.state(), PodSandboxState::SandboxReady)?;

    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "one".into(), attempt: 0 }),
        image: Some(spec),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(config),
        sandbox_config: Some(pod),
    };
    let container_id = runtime.create_container(request).await?.into_inner().container_id;
    runtime.start_container(StartContainerRequest { container_id: container_id.clone() }).await?;
    let cmd = ["hostname"].map(str::to_owned).to_vec();
    let request = ExecSyncRequest { container_id: container_id.clone(), cmd, timeout: 30 };
    same("output", runtime.exec_sync(request).await?.into_inner().stdout, b"rust\n".to_vec())?;
    let listed = runtime.list_containers(ListContainersRequest::default()).await?.into_inner().containers;
    same("containers", listed.iter().map(|one| one.id.as_str()).collect(), vec![container_id.as_str()])?;

    runtime.stop_container(StopContainerRequest { container_id: container_id.clone(), timeout: 0 }).await?;
    let request = ContainerStatusRequest { container_id: container_id.clone(), verbose: false };
    let status = runtime.container_status(request).await?.into_inner().status.unwrap_or_default();
    same("exit", (status.state(), status.exit_code), (ContainerState::ContainerExited, 137))?;
    runtime.remove_container(RemoveContainerRequest { container_id }).await?;
    runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
    runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await?;
    let left = runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await?.into_inner().items;
    same("pods left", left.len(), 0)
}
