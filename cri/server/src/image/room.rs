//! Room on the disk: whoever removes something from a disk that is nearly full wants the room.
//!
//! kubelet looks at the disk right after it has removed images and containers, and evicts pods if it is as full as before.
//! Elsewhere nobody waits for files to be deleted. Which pods it evicts it takes from what each of them is said to use, so that
//! on a disk that is nearly full this is counted anew.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::Images;
use crate::files::blocking;

/// From this share of used blocks on, in percent. kubelet begins to remove things at 80 to 85 unless it is told otherwise.
const NEARLY_FULL: u64 = 70;

/// How long somebody waits for room at most; freeing goes on without him.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long statistics wait for new counts of what containers use.
const COUNTING: Duration = Duration::from_secs(5);

impl Images {
    /// Until when new counts are worth waiting for, if they are.
    pub(crate) async fn count_anew(&self) -> Option<Instant> {
        self.is_nearly_full().await.then(|| Instant::now() + COUNTING)
    }

    async fn is_nearly_full(&self) -> bool {
        let path = self.root.clone();
        blocking(move || Ok(nearly_full(&path))).await.unwrap_or_default()
    }

    /// Waits until what was removed is off the disk, if that is nearly full.
    pub(crate) async fn make_room(&self) {
        if !self.is_nearly_full().await {
            return;
        }
        match tokio::time::timeout(PATIENCE, self.garbage.collect()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(error = %error.chain(), "room could not be made"),
            Err(_) => tracing::warn!("room is being made for longer than {PATIENCE:?}"),
        }
    }
}

/// One that cannot be asked is not.
fn nearly_full(path: &Path) -> bool {
    let Ok(stat) = rustix::fs::statvfs(path) else { return false };
    share(stat.f_blocks - stat.f_bfree, stat.f_bavail) >= NEARLY_FULL
}

/// Used blocks in percent of those that can be used, as df counts: without what is reserved.
fn share(used: u64, available: u64) -> u64 {
    used.saturating_mul(100).checked_div(used.saturating_add(available)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_as_full_as_df_says() {
        for (used, available, want) in [(0, 0, 0), (0, 10, 0), (69, 31, 69), (7, 3, 70), (10, 0, 100)] {
            assert_eq!(share(used, available), want, "{used} {available}");
        }
        assert!(!nearly_full(Path::new("/does/not/exist")));
    }
}
