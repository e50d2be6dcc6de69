//! Makes committed layers durable in the background, many with one sync.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use kevel_model::Result;
use tokio::sync::Notify;

use crate::{
    error::Error,
    state::State,
    store::{Inner, blocking},
};

/// How long commits are gathered for one sync: a pull's layers are committed in a row, and a sync in their midst would
/// make the pull wait for the disk.
const GATHER: Duration = Duration::from_secs(2);

/// The boot that this kernel runs since.
pub(crate) fn boot_id() -> Result<String, Error> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(format!("reading {path}"), error))?;
    Ok(text.trim().to_owned())
}

/// Syncs the file system of `root`, then notes all that was committed before as durable.
pub(crate) async fn sync(state: &State, root: &Path) -> Result<()> {
    let rows = state.rows();
    let numbers: std::collections::BTreeSet<_> =
        rows.values().filter(|row| !row.unsynced.is_empty()).map(|row| row.number).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    let root = root.to_owned();
    blocking(move || {
        let doing = |error| Error::io(format!("syncing the file system of {root:?}"), error);
        let directory = File::open(&root).map_err(doing)?;
        rustix::fs::syncfs(&directory).map_err(|error| doing(error.into()))
    })
    .await?;
    state.synced(numbers).await
}

/// Syncs whenever it is woken, for as long as the store lives.
pub(crate) async fn run<D: Send + Sync + 'static>(store: Weak<Inner<D>>, wake: Arc<Notify>) {
    loop {
        wake.notified().await;
        tokio::time::sleep(GATHER).await;
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = sync(&store.state, &store.root).await {
            tracing::warn!(root = %store.root.display(), error = %error.chain(), "committed layers are not synced");
        }
    }
}
