//! UpdateContainerResources.

use std::sync::Arc;

use kevel_contract::{container::Container as Entry, task::Update};
use kevel_cri_nri::{api::LinuxResources, oci};
use kevel_cri_spec::Spec;
use kevel_model::{Any, Error, Result};
use kevel_proto::{
    any::{LINUX_RESOURCES, SPEC},
    runtime::v1::{ContainerState, LinuxContainerResources, UpdateContainerResourcesRequest},
};
use prost::Message as _;
use tonic::Status;

use crate::{answer::status, check, nri, record::Stored, server::Server, translate};

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
            check_alive(&server, &id)?;
            let wanted = server.nri.update_container(&id, server.subject(&id), nri::limits(&limits)).await?;
            let alone = server.locks.alone(&id).await;
            update(&server, &id, limits, wanted, request).await?;
            drop(alone);
            server.nri.post_update_container(&id, server.subject(&id)).await;
            Ok(String::new())
        };
        self.operations.run(key, print, work).await.map(drop)
    }
}

/// What the request says, and in its place what NRI's plugins want, if they want something else.
async fn update(
    server: &Server,
    id: &str,
    mut limits: LinuxContainerResources,
    wanted: Option<LinuxResources>,
    request: UpdateContainerResourcesRequest,
) -> Result<()> {
    let (old, document) = current(server, id).await?;
    let settings = &server.settings;
    let asked = translate::resources(&limits);
    let mut spec = kevel_cri_spec::update(&document, &asked, &settings.node, &settings.policy)?;
    if let Some(wanted) = wanted {
        spec = changed(server, spec.into_value(), &wanted)?;
        overlay(&mut limits, &nri::requested(&wanted));
    }
    let annotations = request.annotations.into_iter().collect();
    apply(server, id, old, &spec, annotations).await?;
    note(server, id, &limits).await
}

impl Server {
    /// Changes a container's limits as a plugin of NRI's wants it, whatever the kubelet asked for. The caller has locked
    /// the container.
    pub(crate) async fn update_for_plugin(&self, id: &str, wanted: &LinuxResources) -> Result<()> {
        check_alive(self, id)?;
        let (old, document) = current(self, id).await?;
        let spec = changed(self, document, wanted)?;
        apply(self, id, old, &spec, Default::default()).await?;
        note(self, id, &nri::requested(wanted)).await
    }
}

/// Refuses a container that has ended.
fn check_alive(server: &Server, id: &str) -> Result<()> {
    match server.index.container(id)?.state.cri() {
        ContainerState::ContainerCreated | ContainerState::ContainerRunning => Ok(()),
        _ => Err(Error::failed_precondition(format!("container {id} neither runs nor can be started"))),
    }
}

/// A container's spec, as it is kept and as a document.
async fn current(server: &Server, id: &str) -> Result<(Any, serde_json::Value)> {
    let entry = server.containers.get(&server.scope, id).await?;
    let old = entry.spec.ok_or_else(|| Error::data_loss(format!("container {id} has no spec")))?;
    let document = serde_json::from_slice(&old.value);
    let document = document.map_err(|error| Error::data_loss(format!("spec of container {id}")).with_source(error))?;
    Ok((old, document))
}

fn changed(server: &Server, mut document: serde_json::Value, wanted: &LinuxResources) -> Result<Spec> {
    let done = oci::set_limits(&mut document, wanted, &server.nri_rules());
    done.map_err(|error| Error::invalid_argument("what NRI plugins update").with_source(error))?;
    Ok(Spec::new(document)?)
}

/// Puts a changed spec on record and its limits into the cgroup; what fails leaves the old ones.
async fn apply(
    server: &Server,
    id: &str,
    old: Any,
    spec: &Spec,
    annotations: std::collections::BTreeMap<String, String>,
) -> Result<()> {
    check_alive(server, id)?;
    save(server, id, Any::new(SPEC, spec.to_vec())).await?;
    if server.index.container(id)?.state.cri() != ContainerState::ContainerRunning {
        return Ok(());
    }
    let changed = spec.resources().map(|value| Any::new(LINUX_RESOURCES, value.to_string()));
    let update = Update { container_id: id.to_owned(), resources: changed, annotations };
    if let Err(error) = server.bounded("updating a task", server.tasks.update(&server.scope, update)).await {
        save(server, id, old).await?;
        return Err(error.context(format!("updating container {id}")));
    }
    Ok(())
}

/// Remembers limits for statuses.
async fn note(server: &Server, id: &str, limits: &LinuxContainerResources) -> Result<()> {
    let container = server.index.container(id)?;
    server.set_state(id, |state| merge(state.resources.get_or_insert_default(), limits, &container)).await
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
    overlay(&mut now.0, new);
}

/// Later fields win when protobuf messages are joined, and fields with default values are not written.
fn overlay(now: &mut LinuxContainerResources, new: &LinuxContainerResources) {
    let bytes = new.encode_to_vec();
    let mut joined = now.clone();
    if !new.hugepage_limits.is_empty() {
        joined.hugepage_limits.clear();
    }
    if joined.merge(bytes.as_slice()).is_ok() {
        *now = joined;
    }
}
