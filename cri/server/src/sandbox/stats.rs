//! PodSandboxStats, ListPodSandboxStats and StreamPodSandboxStats.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt as _;
use kevel_model::{Code, Result};
use kevel_proto::runtime::v1::{
    ContainerState, LinuxPodSandboxStats, NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats,
    PodSandboxStatsFilter, ProcessUsage,
};

use crate::{
    cgroup::{self, Interface, Place, Reading},
    container::stats::{io, memory, value},
    files::blocking,
    identity,
    index::Pod,
    server::Server,
};

/// Between two looks at CPU time; nearer ones say too little.
const APART: i64 = 1_000_000_000;

/// CPU time at the last look, by pod and container.
#[derive(Default)]
pub(crate) struct Usages {
    last: Mutex<HashMap<String, Look>>,
}

#[derive(Clone, Copy)]
struct Look {
    at: i64,
    cpu: u64,
    rate: Option<u64>,
}

impl Usages {
    /// Billionths of a core since the last look; none at the first.
    pub(crate) fn rate(&self, id: &str, at: i64, cpu: u64) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(look) = last.get(id).copied() else {
            last.insert(id.to_owned(), Look { at, cpu, rate: None });
            return None;
        };
        let (span, used) = (at - look.at, cpu.saturating_sub(look.cpu));
        if span < APART {
            return look.rate;
        }
        let rate = u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(span.unsigned_abs())).ok();
        last.insert(id.to_owned(), Look { at, cpu, rate });
        rate
    }

    /// Forgets what is gone.
    pub(crate) fn forget(&self, id: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

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
        let measured = futures::stream::iter(list).map(|pod| async move { self.measure_pod(&pod).await });
        Ok(measured.buffered(16).filter_map(|stats| async { stats.ok() }).collect().await)
    }

    async fn measure_pod(&self, pod: &Pod) -> Result<PodSandboxStats> {
        let record = &pod.record;
        let (pid, own) = (record.pid, !record.host_network());
        // With a cgroup for the pod, that of the pause process is one of several in it.
        let shared = record.config.linux.as_ref().is_some_and(|linux| !linux.cgroup_parent.is_empty());
        let looked = blocking(move || Ok(look(pid, shared, own))).await?;
        let at = identity::now();
        let running = self.index.snapshot().containers_of(&record.id);
        let running = running.into_iter().filter(|one| one.state.cri() == ContainerState::ContainerRunning).collect();
        let containers = self.measure_all(running).await;
        let reading = &looked.reading;
        Ok(PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(self.cpu(&record.id, reading, at)),
                memory: Some(memory(reading, at)),
                network: own.then(|| network(&looked.interfaces, at)),
                process: Some(ProcessUsage { timestamp: at, process_count: value(reading.pids) }),
                containers,
                io: io(reading, at),
            }),
            windows: None,
        })
    }
}

struct Looked {
    reading: Reading,
    interfaces: Vec<Interface>,
}

fn look(pid: u32, shared: bool, own_network: bool) -> Looked {
    let place = (pid != 0).then(|| Place::of(pid).ok()).flatten();
    let place = place.map(|place| if shared { place.parent() } else { place });
    let interfaces = if own_network && pid != 0 { cgroup::interfaces(pid).unwrap_or_default() } else { Vec::new() };
    Looked { reading: place.map(|place| Reading::of(&place)).unwrap_or_default(), interfaces }
}

/// The pod's own interface apart, and the others.
fn network(interfaces: &[Interface], timestamp: i64) -> NetworkUsage {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_two_looks() {
        let usages = Usages::default();
        assert_eq!(usages.rate("a", 0, 5), None);
        assert_eq!(usages.rate("a", 10, 9), None);
        assert_eq!(usages.rate("a", 2 * APART, 5 + 1_000_000_000), Some(500_000_000));
        assert_eq!(usages.rate("a", 2 * APART + 1, 9_000_000_000), Some(500_000_000));
        usages.forget("a");
        assert_eq!(usages.rate("a", 9 * APART, 1), None);
    }
}
