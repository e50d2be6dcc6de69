//! A node with many pods: bursts up and down, lists and statistics, memory, restart.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::Bench;
use crate::{
    client::Client,
    memory,
    sample::{Which, timed},
};

/// Pods that are made or removed at the same time.
const PARALLEL: usize = 16;
/// Calls of each list in a round.
const LISTS: usize = 10;

impl Bench {
    /// One burst with each runtime in turn; the other one has no pods meanwhile.
    pub(super) async fn load_round(&mut self, round: u32) -> anyhow::Result<()> {
        for which in Which::turns(round) {
            self.idle(which).await?;
            let pods = self.up(which).await?;
            self.lists(which).await?;
            self.memory(which)?;
            self.restart(which).await?;
            self.down(which, pods).await?;
        }
        Ok(())
    }

    /// Memory of a daemon that has just started and has no pods.
    async fn idle(&mut self, which: Which) -> anyhow::Result<()> {
        let side = self.side(which);
        side.stop().await?;
        side.launch().await?;
        ensure!(side.client()?.pods().await? == 0, "{} has pods before the burst", side.name);
        let pss = memory::pss(side.pid()?)?;
        self.samples.put("pss_idle", which, pss);
        Ok(())
    }

    async fn up(&mut self, which: Which) -> anyhow::Result<Vec<String>> {
        let image = self.images.reference("busybox");
        let names: Vec<_> = (0..self.options.pods).map(|_| self.pod_name()).collect();
        let side = self.side(which);
        let client = side.client()?;
        let make = |name: String| {
            let (mut client, pod, image) = (client.clone(), side.pod(&name), &image);
            async move {
                let id = client.run_pod(&pod).await?;
                let container = client.create(&id, &pod, image).await?;
                client.start(&container).await?;
                anyhow::Ok(id)
            }
        };
        let cost = Cost::begin(side)?;
        let pods = stream::iter(names).map(make).buffer_unordered(PARALLEL).try_collect().await?;
        let [wall, cpu, daemon] = cost.end(self.side(which))?;
        self.samples.put("up_wall", which, wall);
        self.samples.put("up_cpu", which, cpu);
        self.samples.put("up_daemon", which, daemon);
        Ok(pods)
    }

    async fn down(&mut self, which: Which, pods: Vec<String>) -> anyhow::Result<()> {
        let side = self.side(which);
        let client = side.client()?;
        let remove = |id: String| {
            let mut client = client.clone();
            async move {
                client.stop_pod(&id).await?;
                client.remove_pod(&id).await
            }
        };
        let cost = Cost::begin(side)?;
        stream::iter(pods).map(remove).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
        let [wall, cpu, daemon] = cost.end(self.side(which))?;
        self.samples.put("down_wall", which, wall);
        self.samples.put("down_cpu", which, cpu);
        self.samples.put("down_daemon", which, daemon);
        Ok(())
    }

    /// Calls each list several times; the first call of each warms up and counts as the others do.
    async fn lists(&mut self, which: Which) -> anyhow::Result<()> {
        let pods = self.options.pods as usize;
        let mut client = self.side(which).client()?;
        for _ in 0..LISTS {
            let (containers, containers_time) = timed(client.containers()).await?;
            let (sandboxes, sandboxes_time) = timed(client.pods()).await?;
            let (stats, stats_time) = timed(client.stats()).await?;
            let (pod_stats, pod_stats_time) = timed(client.pod_stats()).await?;
            let found = [containers, sandboxes, stats, pod_stats];
            ensure!(found == [pods; 4], "{} lists {found:?} of {pods}", self.side(which).name);
            self.samples.time("list_containers", which, containers_time);
            self.samples.time("list_pods", which, sandboxes_time);
            self.samples.time("list_stats", which, stats_time);
            self.samples.time("list_pod_stats", which, pod_stats_time);
        }
        Ok(())
    }

    fn memory(&mut self, which: Which) -> anyhow::Result<()> {
        let side = self.side(which);
        let daemon = memory::pss(side.pid()?)?;
        let shims = side.shims_pss()?;
        self.samples.put("pss_loaded", which, daemon);
        self.samples.put("pss_shim", which, shims / f64::from(self.options.pods));
        Ok(())
    }

    /// Ends the daemon and starts it again: until it answers Version, and until every pod and container is there.
    async fn restart(&mut self, which: Which) -> anyhow::Result<()> {
        let pods = self.options.pods as usize;
        let side = self.side(which);
        side.stop().await?;
        let begun = Instant::now();
        side.launch().await?;
        let version = begun.elapsed();
        let mut client = side.client()?;
        let listed = tokio::time::timeout(std::time::Duration::from_secs(60), all_listed(&mut client, pods)).await;
        listed.with_context(|| format!("{} does not list {pods} pods after a restart", side.name))??;
        let listed = begun.elapsed();
        self.samples.time("restart_version", which, version);
        self.samples.time("restart_listed", which, listed);
        Ok(())
    }
}

async fn all_listed(client: &mut Client, pods: usize) -> anyhow::Result<()> {
    while client.pods().await? != pods || client.containers().await? != pods {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Time and CPU of something that a runtime does.
struct Cost {
    begun: Instant,
    all: std::time::Duration,
    daemon: std::time::Duration,
}

impl Cost {
    fn begin(side: &crate::side::Side) -> anyhow::Result<Self> {
        Ok(Self { all: side.cgroup.cpu()?, daemon: memory::cpu(side.pid()?)?, begun: Instant::now() })
    }

    /// Seconds: wall, CPU of every process, CPU of the daemon.
    fn end(self, side: &crate::side::Side) -> anyhow::Result<[f64; 3]> {
        let wall = self.begun.elapsed();
        let all = side.cgroup.cpu()?.saturating_sub(self.all);
        let daemon = memory::cpu(side.pid()?)?.saturating_sub(self.daemon);
        Ok([wall.as_secs_f64(), all.as_secs_f64(), daemon.as_secs_f64()])
    }
}
