//! UpdateContainerResources.

use std::sync::Arc;

use kevel_contract::{container::Container as Entry, task::Update};
use kevel_model::{Any, Error, Result};
use kevel_proto::{
    any::{LINUX_RESOURCES, SPEC},
    runtime::v1::{ContainerState, LinuxContainerResources, UpdateContainerResourcesRequest},
};
use prost::Message as _;
use tonic::Status;

use crate::{answer::status, check, record::Stored, server::Server, translate};

impl Server {
    /// Changes a container's limits: in its spec, and in its cgroup while it runs.
    pub(crate) async fn update_container(
        self: &Arc<Self>,
        request: UpdateContainerResourcesRequest,
    ) -> Result<(), Status> {
        let plan = || -> Result<String> {
            check::resources("linux", request.linux.as_ref())?;
            if request.windows.is_some() {
                return Err(Error::invalid_argument("windows: this is Linux"));
            }
            Ok(self.index.container(&request.container_id)?.record.id.clone())
        };
        let id = plan().map_err(|error| status(&error))?;
        let Some(limits) = request.linux.clone() else { return Ok(()) };
        let server = self.clone();
        let (key, print) = (format!("update container {id}"), request.encode_to_vec());
        let work = || async move {
            let _alone = server.locks.alone(&id).await;
            update(&server, &id, limits, request).await.map(|()| String::new())
        };
        self.operations.run(key, print, work).await.map(drop)
    }
}

async fn update(
    server: &Server,
    id: &str,
    limits: LinuxContainerResources,
    request: UpdateContainerResourcesRequest,
) -> Result<()> {
    let container = server.index.container(id)?;
    let state = container.state.cri();
    if !matches!(state, ContainerState::ContainerCreated | ContainerState::ContainerRunning) {
        return Err(Error::failed_precondition(format!("container {id} neither runs nor can be started")));
    }
    let entry = server.containers.get(&server.scope, id).await?;
    let old = entry.spec.clone().ok_or_else(|| Error::data_loss(format!("container {id} has no spec")))?;
    let document: serde_json::Value = serde_json::from_slice(&old.value)
        .map_err(|error| Error::data_loss(format!("spec of container {id}")).with_source(error))?;
    let resources = translate::resources(&limits);
    let settings = &server.settings;
    let spec = kevel_cri_spec::update(&document, &resources, &settings.node, &settings.policy)?;
    save(server, id, Any::new(SPEC, spec.to_vec())).await?;
    if state == ContainerState::ContainerRunning {
        let changed = spec.resources().map(|value| Any::new(LINUX_RESOURCES, value.to_string()));
        let annotations = request.annotations.into_iter().collect();
        let update = Update { container_id: id.to_owned(), resources: changed, annotations };
        if let Err(error) = server.bounded("updating a task", server.tasks.update(&server.scope, update)).await {
            save(server, id, old).await?;
            return Err(error.context(format!("updating container {id}")));
        }
    }
    server.set_state(id, |state| merge(state.resources.get_or_insert_default(), &limits, &container)).await
}

async fn save(server: &Server, id: &str, spec: Any) -> Result<()> {
    let mut entry = Entry::new(id);
    entry.spec = Some(spec);
    server.containers.update(&server.scope, entry, &["spec".to_owned()]).await.map(drop)
}

/// What the request says replaces what was; 0 and empty say nothing.
fn merge(
    now: &mut Stored<LinuxContainerResources>,
    new: &LinuxContainerResources,
    container: &crate::index::Container,
) {
    if now.0 == LinuxContainerResources::default() {
        let linux = container.record.config.linux.as_ref();
        now.0 = linux.and_then(|linux| linux.resources.clone()).unwrap_or_default();
    }
    // Later fields win when protobuf messages are joined, and fields with default values are not written.
    let bytes = new.encode_to_vec();
    let mut joined = now.0.clone();
    if !new.hugepage_limits.is_empty() {
        joined.hugepage_limits.clear();
    }
    if joined.merge(bytes.as_slice()).is_ok() {
        now.0 = joined;
    }
}
