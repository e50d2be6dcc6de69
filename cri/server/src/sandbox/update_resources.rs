//! UpdatePodSandboxResources.

use std::sync::Arc;

use kevel_model::{Any, Error, Result};
use kevel_proto::{
    any::CRI_UPDATED_RESOURCES,
    runtime::v1::{LinuxContainerResources, UpdatePodSandboxResourcesRequest},
};
use prost::Message as _;
use serde_json::{Map, Value};
use tonic::Status;

use crate::{
    answer::status,
    check, nri,
    record::{EXTENSION, SandboxRecord, Stored},
    server::Server,
};

/// The extension that controllers read the new limits from, as containerd names it.
const UPDATED: &str = "updated-resources";

impl Server {
    /// Notes what a pod as a whole may use from now on, and tells the pod's controller. The pod's own cgroup is the
    /// kubelet's; a controller that runs pods in a machine sizes that machine, and one that does nothing with it may say
    /// that it does not know the call.
    pub(crate) async fn update_pod(self: &Arc<Self>, request: UpdatePodSandboxResourcesRequest) -> Result<(), Status> {
        let plan = || -> Result<String> {
            check::resources("overhead", request.overhead.as_ref())?;
            check::resources("resources", request.resources.as_ref())?;
            Ok(self.index.pod(&request.pod_sandbox_id)?.record.id.clone())
        };
        let id = plan().map_err(|error| status(&error))?;
        let (server, print) = (self.clone(), request.encode_to_vec());
        let key = format!("update pod sandbox {id}");
        let work = || async move {
            let _alone = server.pods.alone(&id).await;
            let limits = |limits: &Option<LinuxContainerResources>| limits.as_ref().map(nri::limits);
            let (overhead, all) = (limits(&request.overhead), limits(&request.resources));
            server.nri.update_pod(server.described_pod(&id), overhead, all).await?;
            update(&server, &id, request).await?;
            server.nri.post_update_pod(&id, server.described_pod(&id)).await;
            Ok(String::new())
        };
        self.operations.run(key, print, work).await.map(drop)
    }
}

async fn update(server: &Server, id: &str, request: UpdatePodSandboxResourcesRequest) -> Result<()> {
    let pod = server.index.pod(id)?;
    if !pod.ready {
        return Err(Error::failed_precondition(format!("pod sandbox {id} is not running")));
    }
    let extension = Any::new(CRI_UPDATED_RESOURCES, describe(&request).to_string());
    let mut record = SandboxRecord::clone(&pod.record);
    record.overhead = request.overhead.map(Stored).or(record.overhead);
    record.resources = request.resources.map(Stored).or(record.resources);
    let mut sandbox = server.sandbox(&record)?;
    sandbox.extensions.insert(UPDATED.to_owned(), extension);
    let paths = [EXTENSION, UPDATED].map(|name| format!("extensions.{name}"));
    server.sandboxes.update(&server.scope, sandbox.clone(), &paths).await?;
    let controller = server.controller(&record.sandboxer)?;
    let changed = ["extensions".to_owned()];
    let told = controller.update(&server.scope, sandbox, &changed);
    match server.bounded("updating a sandbox", told).await {
        Err(error) if error.code() == kevel_model::Code::Unimplemented => {}
        Err(error) => {
            server.save_sandbox(&pod.record).await?;
            return Err(error.context(format!("updating sandbox {id}")));
        }
        Ok(()) => {}
    }
    server.index.change_pod(id, |pod| pod.record = Arc::new(record));
    Ok(())
}

/// The limits in the JSON of containerd's extension: a Go struct without tags around CRI's field names.
fn describe(request: &UpdatePodSandboxResourcesRequest) -> Value {
    let limits = |name: &str, limits: Option<&LinuxContainerResources>| {
        limits.map(|limits| (name.to_owned(), resources(limits)))
    };
    let both = [limits("Overhead", request.overhead.as_ref()), limits("Resources", request.resources.as_ref())];
    Value::Object(both.into_iter().flatten().collect())
}

fn resources(limits: &LinuxContainerResources) -> Value {
    let mut members = Map::new();
    for (name, number) in [
        ("cpu_period", limits.cpu_period),
        ("cpu_quota", limits.cpu_quota),
        ("cpu_shares", limits.cpu_shares),
        ("memory_limit_in_bytes", limits.memory_limit_in_bytes),
        ("oom_score_adj", limits.oom_score_adj),
        ("memory_swap_limit_in_bytes", limits.memory_swap_limit_in_bytes),
    ] {
        if number != 0 {
            members.insert(name.to_owned(), number.into());
        }
    }
    for (name, list) in [("cpuset_cpus", &limits.cpuset_cpus), ("cpuset_mems", &limits.cpuset_mems)] {
        if !list.is_empty() {
            members.insert(name.to_owned(), list.as_str().into());
        }
    }
    let page = |one: &kevel_proto::runtime::v1::HugepageLimit| serde_json::json!({ "page_size": one.page_size, "limit": one.limit });
    if !limits.hugepage_limits.is_empty() {
        members.insert("hugepage_limits".to_owned(), limits.hugepage_limits.iter().map(page).collect());
    }
    if !limits.unified.is_empty() {
        let files = limits.unified.iter().map(|(file, value)| (file.clone(), Value::from(value.as_str())));
        members.insert("unified".to_owned(), Value::Object(files.collect()));
    }
    members.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_what_the_request_says() {
        let resources = LinuxContainerResources { cpu_shares: 512, cpuset_cpus: "0-1".into(), ..Default::default() };
        let request = UpdatePodSandboxResourcesRequest { resources: Some(resources), ..Default::default() };
        let want = serde_json::json!({ "Resources": { "cpu_shares": 512, "cpuset_cpus": "0-1" } });
        assert_eq!(describe(&request), want);
    }
}
