//! PodSandboxStats, ListPodSandboxStats and StreamPodSandboxStats.

use std::sync::Arc;

use futures::StreamExt as _;
use kevel_model::{Code, Error, Result};
use kevel_proto::runtime::v1::{
    ContainerState, LinuxPodSandboxStats, NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats,
    PodSandboxStatsFilter, ProcessUsage,
};
use prost::Message as _;

use crate::{
    container::stats::{Reading, io, memory, value},
    files::blocking,
    identity,
    index::Pod,
    server::Server,
    usage::network::{self, Interface},
};

impl Server {
    /// What a pod uses.
    pub(crate) async fn pod_stats(&self, id: &str) -> Result<PodSandboxStats> {
        let pod = self.index.pod(id)?;
        self.measure_pod(&pod).await
    }

    /// What every pod that matches uses.
    pub(crate) async fn list_pod_stats(&self, filter: Option<&PodSandboxStatsFilter>) -> Result<Vec<PodSandboxStats>> {
        let filter = filter.cloned().unwrap_or_default();
        let id = match filter.id.as_str() {
            "" => None,
            id => match self.index.pod(id) {
                Err(error) if error.code() == Code::NotFound => return Ok(Vec::new()),
                other => Some(other?.record.id.clone()),
            },
        };
        let matches = |pod: &&Arc<Pod>| {
            pod.ready
                && id.as_ref().is_none_or(|id| *id == pod.record.id)
                && filter.label_selector.iter().all(|(key, value)| pod.record.config.labels.get(key) == Some(value))
        };
        let now = self.index.snapshot();
        let list: Vec<_> = now.pods.values().filter(matches).cloned().collect();
        // One that came or went since is another question.
        let mut key = self.index.changes().to_be_bytes().to_vec();
        filter.encode(&mut key).map_err(|error| Error::internal("encoding a filter").with_source(error))?;
        let read = async {
            let measured = futures::stream::iter(list).map(|pod| async move { self.measure_pod(&pod).await });
            measured.buffered(16).filter_map(|stats| async { stats.ok() }).collect::<Vec<_>>().await
        };
        Ok(self.pod_readings.get(key, read).await.as_ref().clone())
    }

    async fn measure_pod(&self, pod: &Pod) -> Result<PodSandboxStats> {
        let record = &pod.record;
        let (meter, id, pid, above) = (self.meter.clone(), record.id.clone(), record.pid, pod.has_cgroup());
        let read = blocking(move || {
            let place = meter.place(&id, pid).map(|place| if above { Arc::new(place.parent()) } else { place });
            Ok(place.map(|place| Reading::of(&place)).unwrap_or_default())
        });
        let own = !record.host_network();
        let interfaces = async { if own { network::interfaces(pid, &record.netns).await.ok() } else { None } };
        let (reading, interfaces) = tokio::join!(read, interfaces);
        let (reading, at) = (reading?, identity::now());
        let running = self.index.snapshot().containers_of(&record.id);
        let running = running.into_iter().filter(|one| one.state.cri() == ContainerState::ContainerRunning).collect();
        let containers = self.measure_all(running).await;
        Ok(PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(self.cpu(&record.id, &reading, at)),
                memory: Some(memory(&reading, at)),
                network: interfaces.map(|interfaces| usage(&interfaces, at)),
                process: Some(ProcessUsage { timestamp: at, process_count: value(reading.pids.current) }),
                containers,
                io: io(&reading, at),
            }),
            windows: None,
        })
    }
}

impl Pod {
    /// Whether the cgroup above that of the pod's first process is the pod's own.
    pub(crate) fn has_cgroup(&self) -> bool {
        self.record.config.linux.as_ref().is_some_and(|linux| !linux.cgroup_parent.is_empty())
    }
}

/// The pod's own interface apart, and the others.
fn usage(interfaces: &[Interface], timestamp: i64) -> NetworkUsage {
    let usage = |one: &Interface| NetworkInterfaceUsage {
        name: one.name.clone(),
        rx_bytes: value(Some(one.rx_bytes)),
        rx_errors: value(Some(one.rx_errors)),
        tx_bytes: value(Some(one.tx_bytes)),
        tx_errors: value(Some(one.tx_errors)),
    };
    let is_default = |one: &&Interface| one.name == "eth0";
    NetworkUsage {
        timestamp,
        default_interface: interfaces.iter().find(is_default).map(usage),
        interfaces: interfaces.iter().filter(|one| !is_default(one)).map(usage).collect(),
    }
}
