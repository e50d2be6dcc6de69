//! ContainerStats, ListContainerStats and StreamContainerStats.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use kevel_model::{Code, Result};
use kevel_proto::runtime::v1::{
    ContainerAttributes, ContainerState, ContainerStats, ContainerStatsFilter, CpuUsage, FilesystemUsage, IoUsage,
    MemoryUsage, PsiData, PsiStats, SwapUsage, UInt64Value,
};

use crate::{
    cgroup::{Place, Pressure, Reading, Stall},
    files::blocking,
    identity, image,
    index::Container,
    server::Server,
};

/// The longest that counting a container's own files may take before its statistics go without.
const COUNT: Duration = Duration::from_secs(2);

impl Server {
    /// What a container uses.
    pub(crate) async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let container = self.index.container(id)?;
        self.measure(&container).await
    }

    /// What every running container that matches uses.
    pub(crate) async fn list_container_stats(
        &self,
        filter: Option<&ContainerStatsFilter>,
    ) -> Result<Vec<ContainerStats>> {
        let filter = filter.cloned().unwrap_or_default();
        let missing = |error: &kevel_model::Error| error.code() == Code::NotFound;
        let id = match filter.id.as_str() {
            "" => None,
            id => match self.index.container(id) {
                Err(error) if missing(&error) => return Ok(Vec::new()),
                other => Some(other?.record.id.clone()),
            },
        };
        let pod = match filter.pod_sandbox_id.as_str() {
            "" => None,
            id => match self.index.pod(id) {
                Err(error) if missing(&error) => return Ok(Vec::new()),
                other => Some(other?.record.id.clone()),
            },
        };
        let matches = |one: &&Arc<Container>| {
            one.state.cri() == ContainerState::ContainerRunning
                && id.as_ref().is_none_or(|id| *id == one.record.id)
                && pod.as_ref().is_none_or(|pod| *pod == one.record.sandbox_id)
                && filter.label_selector.iter().all(|(key, value)| one.record.config.labels.get(key) == Some(value))
        };
        let now = self.index.snapshot();
        let list: Vec<_> = now.containers.values().filter(matches).cloned().collect();
        Ok(self.measure_all(list).await)
    }

    /// Measures containers; those that end meanwhile are left out.
    pub(crate) async fn measure_all(&self, list: Vec<Arc<Container>>) -> Vec<ContainerStats> {
        let measured = futures::stream::iter(list).map(|one| async move { self.measure(&one).await });
        measured.buffered(16).filter_map(|stats| async { stats.ok() }).collect().await
    }

    async fn measure(&self, container: &Container) -> Result<ContainerStats> {
        let record = &container.record;
        let pid = container.state.pid;
        let reading = blocking(move || Ok(read(pid).unwrap_or_default())).await?;
        let now = identity::now();
        let counted = tokio::time::timeout(COUNT, self.writable_layer(&record.id)).await;
        Ok(ContainerStats {
            attributes: Some(ContainerAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            cpu: Some(self.cpu(&record.id, &reading, now)),
            memory: Some(memory(&reading, now)),
            writable_layer: counted.ok().and_then(Result::ok),
            swap: Some(SwapUsage {
                timestamp: now,
                swap_available_bytes: value(
                    reading.swap_limit.zip(reading.swap).map(|(limit, used)| limit.saturating_sub(used)),
                ),
                swap_usage_bytes: value(reading.swap),
            }),
            io: io(&reading, now),
        })
    }

    async fn writable_layer(&self, id: &str) -> Result<FilesystemUsage> {
        let entry = self.containers.get(&self.scope, id).await?;
        let usage = self.snapshotter(&entry.snapshotter)?.usage(&self.scope, &entry.snapshot_key).await?;
        Ok(image::fs_info::describe(usage, &self.images.mountpoint(&entry.snapshotter)))
    }

    /// CPU time, and how many cores that is since the last look.
    pub(crate) fn cpu(&self, id: &str, reading: &Reading, now: i64) -> CpuUsage {
        CpuUsage {
            timestamp: now,
            usage_core_nano_seconds: value(reading.cpu),
            usage_nano_cores: value(reading.cpu.and_then(|cpu| self.usages.rate(id, now, cpu))),
            psi: reading.pressure[0].map(psi),
        }
    }
}

/// What the cgroup of a process uses; nothing of one that is gone.
fn read(pid: u32) -> Option<Reading> {
    (pid != 0).then(|| Place::of(pid).ok()).flatten().map(|place| Reading::of(&place))
}

pub(crate) fn memory(reading: &Reading, now: i64) -> MemoryUsage {
    let set = reading.working_set();
    MemoryUsage {
        timestamp: now,
        working_set_bytes: value(set),
        available_bytes: value(reading.limit.zip(set).map(|(limit, set)| limit.saturating_sub(set))),
        usage_bytes: value(reading.memory),
        rss_bytes: value(reading.rss),
        page_faults: value(reading.faults),
        major_page_faults: value(reading.major_faults),
        psi: reading.pressure[1].map(psi),
    }
}

pub(crate) fn io(reading: &Reading, now: i64) -> Option<IoUsage> {
    reading.pressure[2].map(|pressure| IoUsage { timestamp: now, psi: Some(psi(pressure)) })
}

fn psi(pressure: Pressure) -> PsiStats {
    let data =
        |stall: Stall| PsiData { total: stall.total, avg10: stall.avg10, avg60: stall.avg60, avg300: stall.avg300 };
    PsiStats { some: Some(data(pressure.some)), full: Some(data(pressure.full)) }
}

pub(crate) fn value(number: Option<u64>) -> Option<UInt64Value> {
    number.map(|value| UInt64Value { value })
}
