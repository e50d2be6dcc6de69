//! A container with the crate `containerd-client`: every service that its users put together for that.

use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
        GetContainerRequest, GetImageRequest, InfoRequest, ListNamespacesRequest, ListTasksRequest, ReadContentRequest,
        StartRequest, WaitRequest,
        container::Runtime,
        containers_client::ContainersClient,
        content_client::ContentClient,
        images_client::ImagesClient,
        namespaces_client::NamespacesClient,
        snapshots::{
            PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, snapshots_client::SnapshotsClient,
        },
        tasks_client::TasksClient,
        version_client::VersionClient,
    },
    tonic::{Request, transport::Channel},
    types::Mount,
    with_namespace,
};
use prost_types::Any;
use serde_json::{Value, json};

use crate::{Result, same};

const NAMESPACE: &str = "k8s.io";
const SNAPSHOTTER: &str = "overlayfs";
const ID: &str = "rust-client";

/// Runs a container that ends with 7.
pub async fn run(channel: Channel, image: &str, cgroup: &str) -> Result<()> {
    let version = VersionClient::new(channel.clone()).version(()).await?.into_inner();
    same("version is told", version.version.is_empty(), false)?;
    let list = NamespacesClient::new(channel.clone()).list(ListNamespacesRequest::default()).await?.into_inner();
    same("namespace", list.namespaces.iter().any(|one| one.name == NAMESPACE), true)?;
    let top = top_layer(&channel, image).await?;
    let mounts = snapshot(&channel, &top).await?;
    let ran = task(&channel, mounts, image, cgroup).await;
    let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: ID.into() };
    SnapshotsClient::new(channel.clone()).remove(with_namespace!(remove, NAMESPACE)).await?;
    ran
}

/// The chain id of an image with one layer: its diff id, out of the image's documents.
async fn top_layer(channel: &Channel, image: &str) -> Result<String> {
    let get = GetImageRequest { name: image.to_owned() };
    let found = ImagesClient::new(channel.clone()).get(with_namespace!(get, NAMESPACE)).await?.into_inner().image;
    let target = found.and_then(|found| found.target).ok_or("the image has no target")?;
    let manifest = document(channel, &target.digest).await?;
    let digest = manifest["config"]["digest"].as_str().ok_or("the manifest names no configuration")?;
    let config = document(channel, digest).await?;
    match config["rootfs"]["diff_ids"].as_array().map(Vec::as_slice) {
        Some([Value::String(one)]) => Ok(one.clone()),
        other => Err(format!("layers: {other:?} instead of one").into()),
    }
}

async fn document(channel: &Channel, digest: &str) -> Result<Value> {
    let mut content = ContentClient::new(channel.clone());
    let info = InfoRequest { digest: digest.to_owned() };
    let size = content.info(with_namespace!(info, NAMESPACE)).await?.into_inner().info.unwrap_or_default().size;
    let read = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
    let mut pieces = content.read(with_namespace!(read, NAMESPACE)).await?.into_inner();
    let mut data = Vec::new();
    while let Some(piece) = pieces.message().await? {
        data.extend_from_slice(&piece.data);
    }
    same("size of the document", data.len() as i64, size)?;
    Ok(serde_json::from_slice(&data)?)
}

async fn snapshot(channel: &Channel, parent: &str) -> Result<Vec<Mount>> {
    let mut snapshots = SnapshotsClient::new(channel.clone());
    let prepare = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: ID.into(),
        parent: parent.to_owned(),
        labels: [("containerd.io/gc.root".to_owned(), "1".to_owned())].into(),
    };
    let mounts = snapshots.prepare(with_namespace!(prepare, NAMESPACE)).await?.into_inner().mounts;
    let stat = StatSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: ID.into() };
    let info = snapshots.stat(with_namespace!(stat, NAMESPACE)).await?.into_inner().info.unwrap_or_default();
    same("parent", info.parent.as_str(), parent)?;
    Ok(mounts)
}

async fn task(channel: &Channel, rootfs: Vec<Mount>, image: &str, cgroup: &str) -> Result<()> {
    let mut containers = ContainersClient::new(channel.clone());
    let container = Container {
        id: ID.into(),
        image: image.to_owned(),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(spec(cgroup)?),
        snapshotter: SNAPSHOTTER.into(),
        snapshot_key: ID.into(),
        ..Default::default()
    };
    let create = CreateContainerRequest { container: Some(container) };
    containers.create(with_namespace!(create, NAMESPACE)).await?;
    let get = GetContainerRequest { id: ID.into() };
    let found = containers.get(with_namespace!(get, NAMESPACE)).await?.into_inner().container.unwrap_or_default();
    same("image of the container", found.image.as_str(), image)?;

    let mut tasks = TasksClient::new(channel.clone());
    let create = CreateTaskRequest { container_id: ID.into(), rootfs, ..Default::default() };
    let pid = tasks.create(with_namespace!(create, NAMESPACE)).await?.into_inner().pid;
    let wait = WaitRequest { container_id: ID.into(), ..Default::default() };
    let (mut waiter, wait) = (tasks.clone(), with_namespace!(wait, NAMESPACE));
    let waiting = tokio::spawn(async move { waiter.wait(wait).await });
    let start = StartRequest { container_id: ID.into(), ..Default::default() };
    same("pid", tasks.start(with_namespace!(start, NAMESPACE)).await?.into_inner().pid, pid)?;
    same("exit status", waiting.await??.into_inner().exit_status, 7)?;
    let list = tasks.list(with_namespace!(ListTasksRequest::default(), NAMESPACE)).await?.into_inner().tasks;
    same("listed", list.iter().any(|one| one.id == ID), true)?;
    let delete = DeleteTaskRequest { container_id: ID.into() };
    same("deleted", tasks.delete(with_namespace!(delete, NAMESPACE)).await?.into_inner().exit_status, 7)?;
    let delete = DeleteContainerRequest { id: ID.into() };
    containers.delete(with_namespace!(delete, NAMESPACE)).await?;
    Ok(())
}

fn spec(cgroup: &str) -> Result<Any> {
    let namespaces: Vec<_> = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind })).to_vec();
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": ["sh", "-c", "exit 7"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 },
        },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": namespaces, "cgroupsPath": format!("{cgroup}/{ID}") },
    });
    let type_url = "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned();
    Ok(Any { type_url, value: serde_json::to_vec(&spec)? })
}
