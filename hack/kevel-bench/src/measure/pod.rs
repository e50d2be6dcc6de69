//! The life of single pods, and commands in their containers.

use std::time::Instant;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::Bench;
use crate::{
    client::Client,
    sample::{Group, Which, timed},
};

/// Commands of a round, one after the other, and as many times eight at once.
const EXECS: usize = 3;
const PARALLEL: usize = 8;

impl Bench {
    /// `count` lives of a pod with each runtime in turn; before the first, one that is not counted.
    pub(super) async fn pod_rounds(&mut self, round: u32, count: u32) -> anyhow::Result<()> {
        if round == 0 {
            let kept = std::mem::take(&mut self.samples);
            for which in Which::BOTH {
                self.life(which).await?;
            }
            self.samples = kept;
        }
        for turn in 0..count {
            for which in Which::turns(turn) {
                self.life(which).await?;
            }
        }
        Ok(())
    }

    async fn life(&mut self, which: Which) -> anyhow::Result<()> {
        let (name, image) = (self.pod_name(), self.images.reference("busybox"));
        let pod = self.side(which).pod(&name);
        let cgroup = self.side(which).cgroup.clone();
        let mut client = self.side(which).client()?;
        let before = cgroup.cpu()?;
        let (pod_id, run) = timed(client.run_pod(&pod)).await?;
        let (id, create) = timed(client.create(&pod_id, &pod, &image)).await?;
        let ((), start) = timed(client.start(&id)).await?;
        let mut cpu = cgroup.cpu()? - before;
        if self.options.wants(Group::Exec) {
            self.execs(which, &mut client, &id).await?;
        }
        let before = cgroup.cpu()?;
        let ((), stop) = timed(client.stop(&id)).await?;
        let ((), remove) = timed(client.remove(&id)).await?;
        let ((), stop_pod) = timed(client.stop_pod(&pod_id)).await?;
        let ((), remove_pod) = timed(client.remove_pod(&pod_id)).await?;
        cpu += cgroup.cpu()? - before;
        if !self.options.wants(Group::Pod) {
            return Ok(());
        }
        for (row, time) in [
            ("run_pod", run),
            ("create", create),
            ("start", start),
            ("create_start", create + start),
            ("stop", stop),
            ("remove", remove),
            ("stop_pod", stop_pod),
            ("remove_pod", remove_pod),
            ("life_cpu", cpu),
        ] {
            self.samples.time(row, which, time);
        }
        Ok(())
    }

    async fn execs(&mut self, which: Which, client: &mut Client, id: &str) -> anyhow::Result<()> {
        let cgroup = self.side(which).cgroup.clone();
        let before = cgroup.cpu()?;
        for _ in 0..EXECS {
            let ((), time) = timed(client.exec_true(id)).await?;
            self.samples.time("exec", which, time);
        }
        let begun = Instant::now();
        let exec = |_| {
            let mut client = client.clone();
            async move { client.exec_true(id).await }
        };
        let all = stream::iter(0..EXECS * PARALLEL).map(exec).buffer_unordered(PARALLEL);
        all.try_collect::<Vec<()>>().await?;
        let wall = begun.elapsed().as_secs_f64();
        self.samples.put("exec_rate", which, (EXECS * PARALLEL) as f64 / wall);
        let each = (cgroup.cpu()? - before) / u32::try_from(EXECS * (PARALLEL + 1))?;
        self.samples.time("exec_cpu", which, each);
        Ok(())
    }
}
