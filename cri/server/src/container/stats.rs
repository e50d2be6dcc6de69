//! ContainerStats, ListContainerStats and StreamContainerStats.

use std::{sync::Arc, time::Instant};

use futures::StreamExt as _;
use kevel_cgroup::{Cpu, Memory, Pids, Place, Pressure, Pressures, Stall};
use kevel_model::{Code, Error, Result};
use kevel_proto::runtime::v1::{
    ContainerAttributes, ContainerState, ContainerStats, ContainerStatsFilter, CpuUsage, FilesystemUsage, IoUsage,
    MemoryUsage, PsiData, PsiStats, SwapUsage, UInt64Value,
};
use prost::Message as _;

use crate::{files::blocking, identity, image, index::Container, server::Server};

/// How many containers one thread reads in a go.
const READ_AT_ONCE: usize = 32;

impl Server {
    /// What a container uses.
    pub(crate) async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let container = self.index.container(id)?;
        if let Some(measured) = self.measure_all(vec![container.clone()]).await.pop() {
            return Ok(measured);
        }
        // It does not run; what is left of it is its files.
        let layer = self.writable_layer(&container.record.id, None).await;
        Ok(self.describe_stats(&container, &Reading::default(), identity::now(), layer))
    }

    /// What every running container that matches uses.
    pub(crate) async fn list_container_stats(
        &self,
        filter: Option<&ContainerStatsFilter>,
    ) -> Result<Vec<ContainerStats>> {
        let filter = filter.cloned().unwrap_or_default();
        let missing = |error: &Error| error.code() == Code::NotFound;
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
        // One that came or went since is another question.
        let mut key = self.index.changes().to_be_bytes().to_vec();
        filter.encode(&mut key).map_err(|error| Error::internal("encoding a filter").with_source(error))?;
        let read = self.measure_all(list);
        Ok(self.container_readings.get(key, read).await.as_ref().clone())
    }

    /// Measures containers; those that end meanwhile are left out.
    pub(crate) async fn measure_all(&self, list: Vec<Arc<Container>>) -> Vec<ContainerStats> {
        let parts: Vec<Vec<_>> = list.chunks(READ_AT_ONCE).map(<[_]>::to_vec).collect();
        let new = self.images.count_anew().await;
        let read = futures::stream::iter(parts).map(|part| self.measure_part(part, new));
        read.buffered(4).concat().await
    }

    /// Reads several containers in one go, for that is less work than handing over each of them.
    async fn measure_part(&self, part: Vec<Arc<Container>>, new: Option<Instant>) -> Vec<ContainerStats> {
        let (meter, list) = (self.meter.clone(), part.clone());
        let read = blocking(move || {
            let read = |one: &Arc<Container>| {
                let place = meter.place(&one.record.id, one.state.pid)?;
                place.exists().then(|| (Reading::of(&place), identity::now()))
            };
            Ok(list.iter().map(read).collect::<Vec<_>>())
        });
        let Ok(read) = read.await else { return Vec::new() };
        let read = part.into_iter().zip(read).filter_map(|(one, read)| read.map(|(reading, at)| (one, reading, at)));
        let described = futures::stream::iter(read).map(|(one, reading, at)| async move {
            let layer = self.writable_layer(&one.record.id, new).await;
            self.describe_stats(&one, &reading, at, layer)
        });
        described.buffered(READ_AT_ONCE).collect().await
    }

    fn describe_stats(
        &self,
        container: &Container,
        reading: &Reading,
        now: i64,
        writable_layer: Option<FilesystemUsage>,
    ) -> ContainerStats {
        let (record, memory) = (&container.record, memory(reading, now));
        let swap = reading.memory.swap_limit.zip(reading.memory.swap);
        ContainerStats {
            attributes: Some(ContainerAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            cpu: Some(self.cpu(&record.id, reading, now)),
            memory: Some(memory),
            writable_layer,
            swap: Some(SwapUsage {
                timestamp: now,
                swap_available_bytes: value(swap.map(|(limit, used)| limit.saturating_sub(used))),
                swap_usage_bytes: value(reading.memory.swap),
            }),
            io: io(reading, now),
        }
    }

    /// How large a container's own files are, as last counted; a `new` count is waited for until then.
    pub(crate) async fn writable_layer(&self, id: &str, new: Option<Instant>) -> Option<FilesystemUsage> {
        let entry = self.containers.get(&self.scope, id).await.ok()?;
        let (usage, at) = self.images.layer(&entry.snapshotter, &entry.snapshot_key, new).await?;
        Some(image::fs_info::describe(usage, &self.images.mountpoint(&entry.snapshotter), at))
    }

    /// CPU time, and how many cores that is since the last look.
    pub(crate) fn cpu(&self, id: &str, reading: &Reading, now: i64) -> CpuUsage {
        CpuUsage {
            timestamp: now,
            usage_core_nano_seconds: value(reading.cpu),
            usage_nano_cores: value(reading.cpu.and_then(|cpu| self.meter.rate(id, now, cpu))),
            psi: reading.pressure.cpu.map(psi),
        }
    }
}

/// What statistics are made of.
#[derive(Default)]
pub(crate) struct Reading {
    /// CPU time in nanoseconds.
    pub(crate) cpu: Option<u64>,
    pub(crate) memory: Memory,
    pub(crate) pids: Pids,
    pub(crate) pressure: Pressures,
}

impl Reading {
    /// Reads a place. Blocks.
    pub(crate) fn of(place: &Place) -> Self {
        Self {
            cpu: Cpu::usage_of(place),
            memory: Memory::of(place),
            pids: Pids::of(place),
            pressure: Pressures::of(place),
        }
    }
}

pub(crate) fn memory(reading: &Reading, now: i64) -> MemoryUsage {
    let memory = &reading.memory;
    let set = memory.working_set();
    MemoryUsage {
        timestamp: now,
        working_set_bytes: value(set),
        available_bytes: value(memory.limit.zip(set).map(|(limit, set)| limit.saturating_sub(set))),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.faults),
        major_page_faults: value(memory.major_faults),
        psi: reading.pressure.memory.map(psi),
    }
}

pub(crate) fn io(reading: &Reading, now: i64) -> Option<IoUsage> {
    reading.pressure.io.map(|pressure| IoUsage { timestamp: now, psi: Some(psi(pressure)) })
}

fn psi(pressure: Pressure) -> PsiStats {
    let data =
        |stall: Stall| PsiData { total: stall.total, avg10: stall.avg10, avg60: stall.avg60, avg300: stall.avg300 };
    PsiStats { some: Some(data(pressure.some)), full: Some(data(pressure.full)) }
}

pub(crate) fn value(number: Option<u64>) -> Option<UInt64Value> {
    number.map(|value| UInt64Value { value })
}
