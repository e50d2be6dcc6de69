//! PodSandboxStatus, and what events say of a pod.

use std::collections::BTreeMap;

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::{
    ContainerEventResponse, ContainerStatus, LinuxPodSandboxStatus, Namespace, PodIp, PodSandboxNetworkStatus,
    PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use serde_json::json;

use crate::{
    event::Event,
    index::{Pod, Snapshot},
    server::Server,
    translate,
};

impl Server {
    /// A pod and its containers, of one moment.
    pub(crate) async fn pod_status(&self, request: &PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse> {
        let pod = self.index.pod(&request.pod_sandbox_id)?;
        let info = if request.verbose { self.pod_info(&pod).await } else { BTreeMap::new() };
        let (now, timestamp) = self.index.stamped();
        let gone = || Error::not_found(format!("pod sandbox {} was removed meanwhile", pod.record.id));
        let pod = now.pods.get(&pod.record.id).ok_or_else(gone)?;
        Ok(PodSandboxStatusResponse {
            status: Some(pod.status()),
            info: info.into_iter().collect(),
            containers_statuses: self.statuses(&now, &pod.record.id),
            timestamp,
        })
    }

    /// Newest first: of several containers of one name, kubelet takes the first for the one that counts.
    fn statuses(&self, now: &Snapshot, pod: &str) -> Vec<ContainerStatus> {
        let containers = now.containers_of(pod);
        let mut statuses: Vec<_> = containers.iter().map(|container| self.describe_container(container)).collect();
        statuses.sort_by_key(|status| std::cmp::Reverse(status.created_at));
        statuses
    }

    async fn pod_info(&self, pod: &Pod) -> BTreeMap<String, String> {
        let record = &pod.record;
        let container = self.containers.get(&self.scope, &record.id).await.ok();
        let spec = container.as_ref().and_then(|one| one.spec.as_ref());
        let spec = spec.and_then(|spec| serde_json::from_slice::<serde_json::Value>(&spec.value).ok());
        let info = json!({
            "pid": record.pid,
            "processStatus": if pod.ready { "running" } else { "stopped" },
            "netNamespaceClosed": record.host_network() || record.pid == 0,
            "image": self.images.config.sandbox_image(),
            "snapshotKey": record.id,
            "snapshotter": container.as_ref().map(|one| one.snapshotter.clone()),
            "runtimeHandler": record.handler,
            "runtimeType": container.as_ref().map(|one| one.runtime.name.clone()),
            "sandboxer": record.sandboxer,
            "runtimeSpec": spec,
            "cniResult": record.network.as_ref().map(|network| json!({ "Interfaces": network.interfaces })),
            "netns": record.netns,
            "networkCheck": if pod.ready { Some(self.check_network(pod).await.err().unwrap_or_else(|| "ok".to_owned())) } else { None },
        });
        [("info".to_owned(), info.to_string())].into()
    }

    /// An event as CRI writes it, with the pod and its containers right after it.
    pub(crate) fn describe_event(&self, event: &Event) -> ContainerEventResponse {
        ContainerEventResponse {
            container_id: event.container.clone(),
            container_event_type: event.what as i32,
            created_at: event.stamp,
            pod_sandbox_status: Some(event.pod.status()),
            containers_statuses: self.statuses(&event.now, &event.pod.record.id),
        }
    }
}

impl Pod {
    /// As CRI describes it.
    pub(crate) fn status(&self) -> PodSandboxStatus {
        let record = &self.record;
        let options = translate::security(&record.config).namespace_options;
        PodSandboxStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: self.state() as i32,
            created_at: record.created_at,
            network: Some(self.network()),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.handler.clone(),
        }
    }

    /// The addresses; none with the node's network, and none of a pod that has ended.
    fn network(&self) -> PodSandboxNetworkStatus {
        let Some(network) = self.record.network.as_ref().filter(|_| self.ready) else {
            return PodSandboxNetworkStatus::default();
        };
        let others = network.ips.iter().filter(|ip| **ip != network.ip);
        PodSandboxNetworkStatus {
            ip: network.ip.to_string(),
            additional_ips: others.map(|ip| PodIp { ip: ip.to_string() }).collect(),
        }
    }
}
