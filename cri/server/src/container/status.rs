//! ContainerStatus: from memory.

use std::collections::BTreeMap;

use kevel_model::Result;
use kevel_proto::runtime::v1::{
    ContainerResources, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse, ContainerUser, ImageSpec,
    LinuxContainerUser, Signal,
};
use serde_json::json;

use crate::{index::Container, server::Server};

impl Server {
    /// A container.
    pub(crate) async fn container_status(&self, request: &ContainerStatusRequest) -> Result<ContainerStatusResponse> {
        let container = self.index.container(&request.container_id)?;
        let info = if request.verbose { self.container_info(&container).await } else { BTreeMap::new() };
        Ok(ContainerStatusResponse {
            status: Some(self.describe_container(&container)),
            info: info.into_iter().collect(),
        })
    }

    async fn container_info(&self, container: &Container) -> BTreeMap<String, String> {
        let record = &container.record;
        let entry = self.containers.get(&self.scope, &record.id).await.ok();
        let spec = entry.as_ref().and_then(|one| one.spec.as_ref());
        let spec = spec.and_then(|spec| serde_json::from_slice::<serde_json::Value>(&spec.value).ok());
        let info = json!({
            "sandboxID": record.sandbox_id,
            "pid": container.state.pid,
            "removing": false,
            "snapshotKey": record.id,
            "snapshotter": entry.as_ref().map(|one| one.snapshotter.clone()),
            "runtimeType": entry.as_ref().map(|one| one.runtime.name.clone()),
            "runtimeSpec": spec,
        });
        [("info".to_owned(), info.to_string())].into()
    }

    /// A container as CRI describes it.
    pub(crate) fn describe_container(&self, container: &Container) -> ContainerStatus {
        let (record, state) = (&container.record, &container.state);
        let config = &record.config;
        let linux = config.linux.as_ref();
        let resources = state.resources.as_ref().map(|stored| stored.0.clone());
        let resources = resources.or_else(|| linux.and_then(|linux| linux.resources.clone()));
        let image = self.images.find(&record.image_id).map_or_else(|_| None, |image| Some(image.name()));
        let asked = config.image.clone().unwrap_or_default();
        ContainerStatus {
            id: record.id.clone(),
            metadata: config.metadata.clone(),
            state: state.cri() as i32,
            created_at: record.created_at,
            started_at: state.started_at,
            finished_at: state.finished_at,
            exit_code: state.exit_code,
            image: Some(ImageSpec { image: image.unwrap_or_else(|| asked.image.clone()), ..asked }),
            image_ref: record.image_id.clone(),
            image_id: record.image_id.clone(),
            reason: state.reason.clone(),
            message: state.message.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: record.mounts(),
            log_path: record.log_path.clone(),
            resources: Some(ContainerResources { linux: resources, windows: None }),
            user: Some(ContainerUser {
                linux: Some(LinuxContainerUser {
                    uid: record.uid,
                    gid: record.gid,
                    supplemental_groups: record.groups.clone(),
                }),
            }),
            stop_signal: signal(record.stop_signal),
        }
    }
}

/// A signal's number as CRI's enumeration has it; the first of several names for one number.
fn signal(number: u32) -> i32 {
    let all = (1..=80).filter_map(|value| Signal::try_from(value).ok());
    let mut same = all.filter(|signal| kevel_cri_spec::stop_signal(signal.as_str_name()) == Ok(number));
    same.next().unwrap_or(Signal::RuntimeDefault) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        assert_eq!(signal(15), Signal::Sigterm as i32);
        assert_eq!(signal(9), Signal::Sigkill as i32);
        assert_eq!(signal(6), Signal::Sigabrt as i32);
        assert_eq!(signal(0), Signal::RuntimeDefault as i32);
    }
}
