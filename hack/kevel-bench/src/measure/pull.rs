//! Pulling and removing images.
//!
//! ext4 avoids inodes that were deleted within the last minute and looks through them again for every new file, so that
//! a pull right after a removal measures that. So both runtimes pull everything before either removes anything, and the next
//! round keeps its distance.

use std::time::{Duration, Instant};

use super::Bench;
use crate::sample::{Which, timed};

/// How long ext4 remembers, and some.
const DISTANCE: Duration = Duration::from_secs(70);

impl Bench {
    /// Each image with each runtime in turn, then all of them removed.
    pub(super) async fn pull_round(&mut self, round: u32) -> anyhow::Result<()> {
        if let Some(removed) = self.removed.filter(|_| !self.options.quick) {
            tokio::time::sleep(DISTANCE.saturating_sub(removed.elapsed())).await;
        }
        for (turn, (image, row)) in
            [("gzip", "pull_gzip"), ("zstd", "pull_zstd"), ("single", "pull_single")].into_iter().enumerate()
        {
            let reference = self.images.reference(image);
            for which in Which::turns(round + u32::try_from(turn)?) {
                // Neither pays for what the other one left to be written.
                rustix::fs::sync();
                let cgroup = self.side(which).cgroup.clone();
                let mut client = self.side(which).client()?;
                let before = cgroup.cpu()?;
                let ((), time) = timed(client.pull(&reference)).await?;
                self.samples.time(row, which, time);
                if image == "gzip" {
                    self.samples.time("pull_gzip_cpu", which, cgroup.cpu()? - before);
                }
            }
        }
        for which in Which::turns(round) {
            let mut client = self.side(which).client()?;
            let ((), time) = timed(client.remove_image(&self.images.reference("gzip"))).await?;
            self.samples.time("remove_image", which, time);
            for image in ["zstd", "single"] {
                client.remove_image(&self.images.reference(image)).await?;
            }
        }
        self.removed = Some(Instant::now());
        Ok(())
    }
}
