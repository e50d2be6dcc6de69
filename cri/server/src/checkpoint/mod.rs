//! Checkpoint and restore over CRI, for handlers of runc's shim, whose runtimes use CRIU.
//!
//! A checkpoint is a directory first and an archive then, with the names that checkpointctl, containerd and CRI-O use:
//! `checkpoint/` with CRIU's images, `rootfs-diff.tar`, `config.dump`, `spec.dump`, `status.dump`, `dump.log`,
//! `container.log`. Nothing is taken from an archive but what is needed to restore, and only plain files.
//!
//! - `container`, `pod`: the RPCs. `capture`: from a running container to a directory. `archive`: from there to a file and
//!   back; `partial`: what is begun and not finished of it. `image`: a checkpoint whose files are those of an OCI image.
//!   `restore`: what CreateContainer and StartContainer do otherwise for a container that is restored.
//! - `cgroup`: restored processes are where they belong. `freeze`: containers held still, and let go on by the next daemon if
//!   this one dies. `criu`: whether it works.

mod archive;
mod capture;
mod cgroup;
mod container;
mod criu;
mod freeze;
mod image;
mod partial;
mod pod;
pub(crate) mod restore;
mod restore_pod;

pub(crate) use criu::Criu;

use std::time::Duration;

use kevel_contract::{content::ContentStore, diff::Differ, lease::LeaseManager};
use kevel_model::{Error, Result};
use tokio::time::Instant;

use crate::{config::Handler, patience, server::Server};

/// How long a checkpoint may take when nobody says.
const USUAL: Duration = Duration::from_secs(600);

/// What packs and unpacks the changes that containers made to their files.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Blobs.
    pub content: ContentStore,
    /// What keeps them meanwhile.
    pub leases: LeaseManager,
    /// What makes them and applies them.
    pub differ: Differ,
}

impl Server {
    /// Whether containers of a handler can be checkpointed and restored here; says why not.
    async fn may_checkpoint(&self, handler: &Handler) -> Result<()> {
        if !self.settings.config.enable_criu {
            return Err(Error::failed_precondition("checkpoint and restore are off: enable_criu is false"));
        }
        if !handler.is_runc() {
            let message = format!("handler {}: checkpoint and restore are offered with runc's shim only", handler.name);
            return Err(Error::unimplemented(message));
        }
        self.storage()?;
        self.criu.check().await
    }

    fn storage(&self) -> Result<&Storage> {
        let missing = || Error::failed_precondition("there is no diff service, which checkpoint and restore need");
        self.storage.as_ref().ok_or_else(missing)
    }
}

/// When work has to be over that the request gives so many seconds: the caller's own deadline counts, too.
fn until(seconds: i64) -> Result<Instant> {
    let given = match u64::try_from(seconds) {
        Ok(0) => USUAL,
        Ok(seconds) => Duration::from_secs(seconds.min(24 * 3600)),
        Err(_) => return Err(Error::invalid_argument(format!("timeout: {seconds} is negative"))),
    };
    let at = Instant::now() + given;
    Ok(patience::deadline().map_or(at, |deadline| deadline.min(at)))
}

/// What is left until then; an error when nothing is.
fn left(until: Instant) -> Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::deadline_exceeded("the time for the checkpoint is over"));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_earlier_end_counts() {
        assert!(until(-1).unwrap_err().to_string().starts_with("timeout: "));
        assert!(left(until(7).unwrap()).unwrap() <= Duration::from_secs(7));
        assert!(left(until(0).unwrap()).unwrap() > Duration::from_secs(60));
        let soon = Some(Instant::now() + Duration::from_secs(3));
        assert!(patience::within(soon, async { left(until(60).unwrap()).unwrap() }).await <= Duration::from_secs(3));
        let over = Instant::now();
        assert_eq!(left(over).unwrap_err().code(), kevel_model::Code::DeadlineExceeded);
    }
}
