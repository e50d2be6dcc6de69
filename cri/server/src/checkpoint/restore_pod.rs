//! RestorePod: a pod as RunPodSandbox makes it, with containers made from what CheckpointPod wrote. They are created;
//! StartContainer lets them go on where they were. What was made is removed again when a step fails.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::{
    ContainerConfig, CreateContainerRequest, RestorePodRequest, RestorePodResponse, RestoredContainer,
    RunPodSandboxRequest,
};
use tonic::Status;

use super::pod;
use crate::{answer::status, check, identity, server::Server};

impl Server {
    /// Makes a pod and its containers from a directory of checkpoints.
    pub(crate) async fn restore_pod(
        self: &Arc<Self>,
        request: RestorePodRequest,
    ) -> Result<RestorePodResponse, Status> {
        let archives = self.plan_restore(&request).await.map_err(|error| status(&error))?;
        let run =
            RunPodSandboxRequest { config: request.config.clone(), runtime_handler: request.runtime_handler.clone() };
        let pod = self.run_pod_sandbox(run).await?.pod_sandbox_id;
        match self.restore_containers(&pod, &request, &archives).await {
            Ok(restored_containers) => Ok(RestorePodResponse { pod_sandbox_id: pod, restored_containers }),
            Err(error) => {
                if let Err(left) = self.remove_pod_sandbox(&pod).await {
                    tracing::warn!(sandbox = pod, error = left.message(), "a pod that was not restored is left");
                }
                Err(error)
            }
        }
    }

    /// The archive of each container, by name. Nothing has been made yet.
    async fn plan_restore(&self, request: &RestorePodRequest) -> Result<BTreeMap<String, String>> {
        let config = check::sandbox_config(request.config.as_ref())?;
        check::path("checkpoint_path", &request.checkpoint_path)?;
        pod::no_options(&request.options)?;
        let mut names = Vec::new();
        for (index, config) in request.container_configs.iter().enumerate() {
            let field = format!("container_configs[{index}]");
            check::container_config(Some(config)).map_err(|error| Error::from(error).context(field))?;
            names.push(config.metadata.clone().unwrap_or_default().name);
        }
        let name = identity::pod_name(&config.metadata.clone().unwrap_or_default());
        if let Some(pod) = self.index.snapshot().pod_named(&name) {
            return Err(Error::already_exists(format!("pod sandbox {name} exists as {}", pod.record.id)));
        }
        self.may_checkpoint(&*self.settings.handler(&request.runtime_handler)?).await?;
        let path = request.checkpoint_path.clone();
        let dump = self.reach.look(self.settings.config.host_path_timeout, move || pod::read(&path)).await?;
        matched(&names, &dump.containers)?;
        let at = |archive: &String| Path::new(&request.checkpoint_path).join(archive).to_string_lossy().into_owned();
        Ok(dump.containers.iter().map(|(name, archive)| (name.clone(), at(archive))).collect())
    }

    async fn restore_containers(
        self: &Arc<Self>,
        pod: &str,
        request: &RestorePodRequest,
        archives: &BTreeMap<String, String>,
    ) -> Result<Vec<RestoredContainer>, Status> {
        let mut restored = Vec::new();
        for config in &request.container_configs {
            let name = name_of(config);
            let archive = archives.get(&name).cloned().unwrap_or_default();
            let create = CreateContainerRequest {
                pod_sandbox_id: pod.to_owned(),
                config: Some(config.clone()),
                sandbox_config: request.config.clone(),
            };
            let made = self.create_container_from(create, Some(("checkpoint_path", archive))).await?;
            restored.push(RestoredContainer { name, container_id: made.container_id });
        }
        Ok(restored)
    }
}

fn name_of(config: &ContainerConfig) -> String {
    config.metadata.clone().unwrap_or_default().name
}

/// Refuses names that are not exactly those of the checkpoint.
fn matched(names: &[String], archives: &BTreeMap<String, String>) -> Result<()> {
    for (index, name) in names.iter().enumerate() {
        if !archives.contains_key(name) {
            let message = format!("container_configs[{index}].metadata.name: the checkpoint has no container {name:?}");
            return Err(Error::invalid_argument(message));
        }
        if names[..index].contains(name) {
            return Err(Error::invalid_argument(format!("container_configs[{index}].metadata.name: {name:?} again")));
        }
    }
    match archives.keys().find(|name| !names.contains(name)) {
        Some(name) => Err(Error::invalid_argument(format!("container_configs: none for container {name:?}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_one_to_one() {
        let archives: BTreeMap<_, _> = [("a", "1.tar"), ("b", "2.tar")].map(|(a, b)| (a.into(), b.into())).into();
        let check = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            matched(&names, &archives).map_err(|error| error.to_string())
        };
        check(&["b", "a"]).unwrap();
        assert!(check(&["a"]).unwrap_err().contains("none for container \"b\""));
        assert!(check(&["a", "c"]).unwrap_err().starts_with("container_configs[1].metadata.name"));
        assert!(check(&["a", "b", "a"]).unwrap_err().contains("again"));
    }
}
