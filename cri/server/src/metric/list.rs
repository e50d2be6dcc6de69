//! ListPodSandboxMetrics and StreamPodSandboxMetrics.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use kevel_cgroup::Place;
use kevel_model::Result;
use kevel_proto::runtime::v1::{ContainerMetrics, ContainerState, PodSandboxMetrics};
use tokio::sync::Mutex;

use super::{
    filesystem::Filesystem,
    sample::{More, Sample, node_has_swap},
    sheet::Sheet,
};
use crate::{
    files::blocking,
    identity,
    index::{Container, Pod, Snapshot},
    server::Server,
    usage::network,
};

/// How long an answer serves others who ask, if no pod came, went or changed meanwhile.
const FRESH: Duration = Duration::from_secs(1);
/// How many pods are read at once.
const AT_ONCE: usize = 4;

/// The last answer. Who asks while it is being made waits for it.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Option<Answer>>);

struct Answer {
    at: Instant,
    changes: u64,
    metrics: Arc<Vec<PodSandboxMetrics>>,
}

/// File systems by snapshotter.
type Filesystems = BTreeMap<String, Filesystem>;

impl Server {
    /// Metrics of every pod that runs. Reads small files in memory, and asks nobody.
    pub(crate) async fn pod_metrics(&self) -> Result<Arc<Vec<PodSandboxMetrics>>> {
        let mut recent = self.metrics_recent.0.lock().await;
        let changes = self.index.changes();
        if let Some(last) = recent.as_ref().filter(|last| last.changes == changes && last.at.elapsed() < FRESH) {
            return Ok(last.metrics.clone());
        }
        let metrics = Arc::new(self.read_metrics().await?);
        *recent = Some(Answer { at: Instant::now(), changes, metrics: metrics.clone() });
        Ok(metrics)
    }

    async fn read_metrics(&self) -> Result<Vec<PodSandboxMetrics>> {
        let roots = self.snapshotters.keys().map(|name| (name.clone(), self.images.mountpoint(name)));
        let roots: Vec<_> = roots.collect();
        let look = move || {
            let found = roots.into_iter().filter_map(|(name, root)| Some((name, Filesystem::of(Path::new(&root))?)));
            Ok(found.collect::<Filesystems>())
        };
        let filesystems = blocking(look).await?;
        let now = self.index.snapshot();
        let pods: Vec<_> = now.pods.values().filter(|pod| pod.ready).cloned().collect();
        let (now, filesystems) = (&now, &filesystems);
        let read = futures::stream::iter(pods).map(|pod| async move { self.read_pod(&pod, now, filesystems).await });
        Ok(read.buffered(AT_ONCE).collect().await)
    }

    async fn read_pod(&self, pod: &Pod, now: &Snapshot, filesystems: &Filesystems) -> PodSandboxMetrics {
        let record = &pod.record;
        let containers = now.containers_of(&record.id);
        let running = |one: &Arc<Container>| one.state.cri() == ContainerState::ContainerRunning;
        let containers: Vec<_> = containers.into_iter().filter(running).collect();
        let (meter, id, pid, own) = (self.meter.clone(), record.id.clone(), record.pid, pod.has_cgroup());
        let ids: Vec<_> = containers.iter().map(|one| (one.record.id.clone(), one.state.pid)).collect();
        let read = blocking(move || {
            let pod = meter.place(&id, pid).filter(|_| own).map(|place| Sample::of(&place.parent()));
            let read = |(id, pid): (String, u32)| {
                let place = meter.place(&id, pid).filter(|place| Place::exists(place))?;
                Some((Sample::of(&place), More::of(&place)))
            };
            Ok((pod, ids.into_iter().map(read).collect::<Vec<_>>(), node_has_swap()))
        });
        let (pod_sample, samples, swap) = read.await.unwrap_or_default();
        let mut sheet = Sheet::new(identity::now(), labels(pod, "", &record.id, ""));
        if let Some(sample) = pod_sample {
            sample.write(&mut sheet, swap);
        }
        if !record.host_network() {
            self.write_network(pod, &mut sheet).await;
        }
        let mut container_metrics = Vec::with_capacity(containers.len());
        for (container, sample) in containers.iter().zip(samples) {
            let Some((sample, more)) = sample else { continue }; // it ended meanwhile
            container_metrics.push(self.write_container(pod, container, &sample, &more, filesystems).await);
        }
        PodSandboxMetrics { pod_sandbox_id: record.id.clone(), metrics: sheet.metrics, container_metrics }
    }

    async fn write_container(
        &self,
        pod: &Pod,
        container: &Container,
        sample: &Sample,
        more: &More,
        filesystems: &Filesystems,
    ) -> ContainerMetrics {
        let (record, state, at) = (&container.record, &container.state, identity::now());
        let name = record.config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        let image = record.config.image.as_ref();
        let image = image.map_or("", |image| match image.user_specified_image.as_str() {
            "" => image.image.as_str(),
            given => given,
        });
        let mut sheet = Sheet::new(at, labels(pod, name, &record.id, image));
        let seconds = |nanos: i64| u64::try_from(nanos / 1_000_000_000).ok();
        sheet.gauge("container_last_seen", &[], seconds(at));
        sheet.gauge("container_start_time_seconds", &[], seconds(state.started_at));
        let asked = state.resources.as_ref().map(|stored| stored.0.clone());
        let asked = asked.or_else(|| record.config.linux.as_ref().and_then(|linux| linux.resources.clone()));
        more.write(&mut sheet, sample, &asked.unwrap_or_default());
        self.write_filesystem(&record.id, filesystems, &mut sheet).await;
        ContainerMetrics { container_id: record.id.clone(), metrics: sheet.metrics }
    }

    async fn write_filesystem(&self, id: &str, filesystems: &Filesystems, sheet: &mut Sheet) {
        let Ok(entry) = self.containers.get(&self.scope, id).await else { return };
        let Some(filesystem) = filesystems.get(&entry.snapshotter) else { return };
        let device = [filesystem.device.as_str()];
        sheet.gauge("container_fs_limit_bytes", &device, Some(filesystem.size));
        sheet.gauge("container_fs_inodes_total", &device, Some(filesystem.inodes));
        sheet.gauge("container_fs_inodes_free", &device, Some(filesystem.inodes_free));
        let counted = self.images.layer(&entry.snapshotter, &entry.snapshot_key, None).await;
        sheet.gauge("container_fs_usage_bytes", &device, counted.map(|(usage, _)| usage.size));
    }

    async fn write_network(&self, pod: &Pod, sheet: &mut Sheet) {
        let interfaces = match network::interfaces(pod.record.pid, &pod.record.netns).await {
            Ok(interfaces) => interfaces,
            Err(error) => {
                tracing::debug!(sandbox = pod.record.id, %error, "interfaces cannot be read");
                return;
            }
        };
        for one in &interfaces {
            let name = [one.name.as_str()];
            sheet.counter("container_network_receive_bytes_total", &name, Some(one.rx_bytes));
            sheet.counter("container_network_receive_packets_total", &name, Some(one.rx_packets));
            sheet.counter("container_network_receive_packets_dropped_total", &name, Some(one.rx_dropped));
            sheet.counter("container_network_receive_errors_total", &name, Some(one.rx_errors));
            sheet.counter("container_network_transmit_bytes_total", &name, Some(one.tx_bytes));
            sheet.counter("container_network_transmit_packets_total", &name, Some(one.tx_packets));
            sheet.counter("container_network_transmit_packets_dropped_total", &name, Some(one.tx_dropped));
            sheet.counter("container_network_transmit_errors_total", &name, Some(one.tx_errors));
        }
    }
}

/// The first labels, of a container or, with neither name nor image, of the pod itself.
fn labels(pod: &Pod, container: &str, id: &str, image: &str) -> [String; 5] {
    let metadata = pod.record.config.metadata.clone().unwrap_or_default();
    [metadata.name, metadata.namespace, container.to_owned(), id.to_owned(), image.to_owned()]
}
