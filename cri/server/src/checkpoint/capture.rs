//! From a running container, which its caller holds still, to a directory with everything that a checkpoint is made of.

use std::{
    fs::{self, DirBuilder, File},
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use kevel_contract::{Scope, container::Container as Entry, diff::Compare, task::Checkpoint};
use kevel_model::{Any, Context as _, Digest, Error, Labels, Mount, Result, media_type};
use kevel_proto::{any, containerd::runc::v1::CheckpointOptions};
use serde_json::json;
use tokio::time::Instant;

use super::{criu, left};
use crate::{
    files::{blocking, remove_dir},
    identity,
    index::Container,
    server::Server,
};

/// Blobs are copied in such pieces.
const PIECE: usize = 1 << 20;

/// A directory that is gathered in, removed in the end. Only root may look into it: it holds a container's memory.
pub(super) struct Gathered {
    pub(super) path: PathBuf,
    /// The container's log.
    pub(super) log: String,
}

impl Gathered {
    /// An empty directory beside the container's own files, which go with the container whatever happens.
    async fn new(server: &Server, container: &Container) -> Result<Self> {
        let path = server.settings.files.container(&container.record.id).join("checkpoint");
        let made = path.clone();
        blocking(move || {
            remove_dir(&made)?;
            let make = DirBuilder::new().mode(0o700).create(&made);
            make.map_err(|error| Error::io(format!("making directory {}", made.display()), error))
        })
        .await?;
        Ok(Self { path, log: container.record.log_path.clone() })
    }

    /// Removes it; what can't be removed is logged, and goes with the container.
    pub(super) async fn remove(self) {
        if let Err(error) = blocking(move || remove_dir(&self.path)).await {
            tracing::warn!(error = error.chain(), "what a checkpoint was gathered in stays");
        }
    }
}

impl Server {
    /// Gathers everything about a container that is held still.
    pub(super) async fn capture(&self, container: &Container, until: Instant) -> Result<Gathered> {
        let gathered = Gathered::new(self, container).await?;
        match self.gather(container, &gathered.path, until).await {
            Ok(()) => Ok(gathered),
            Err(error) => {
                gathered.remove().await;
                Err(error.context(format!("checkpoint of container {}", container.record.id)))
            }
        }
    }

    async fn gather(&self, container: &Container, dir: &Path, until: Instant) -> Result<()> {
        let entry = self.containers.get(&self.scope, &container.record.id).await?;
        self.dump(&entry.id, dir, until).await?;
        let (config, status) = (config_dump(container, &entry), status_dump(self, container));
        let (spec, at) = (entry.spec.clone().unwrap_or_else(|| Any::new("", "{}")), dir.to_owned());
        blocking(move || {
            write(&at.join("spec.dump"), &spec.value)?;
            write(&at.join("config.dump"), config.to_string().as_bytes())?;
            write(&at.join("status.dump"), status.to_string().as_bytes())
        })
        .await?;
        let changes = dir.join(super::archive::CHANGES);
        let work = self.save_changes(&entry, &changes);
        let late = |_| Err(Error::deadline_exceeded("the files that it changed: not saved in time"));
        tokio::time::timeout(left(until)?, work).await.unwrap_or_else(late)
    }

    /// Has the runtime write its images.
    async fn dump(&self, id: &str, dir: &Path, until: Instant) -> Result<()> {
        let path = |at: &Path| at.to_string_lossy().into_owned();
        let options = any::pack(&CheckpointOptions {
            image_path: path(&dir.join(super::archive::IMAGES)),
            work_path: path(dir),
            file_locks: true,
            ..CheckpointOptions::default()
        });
        let options = Some(Any::new(options.type_url, options.value));
        let checkpoint = Checkpoint { container_id: id.to_owned(), options, limit: Some(left(until)?) };
        let Err(error) = self.tasks.checkpoint(&self.scope, checkpoint).await else { return Ok(()) };
        let log = dir.join("dump.log");
        let why = blocking(move || Ok(criu::complaint(&log))).await?;
        Err(why.into_iter().fold(error, Error::context))
    }

    /// Writes what the container has other than its image, as a layer.
    async fn save_changes(&self, entry: &Entry, to: &Path) -> Result<()> {
        let storage = self.storage()?;
        let snapshotter = self.snapshotter(&entry.snapshotter)?;
        let below = snapshotter.stat(&self.scope, &entry.snapshot_key).await?.parent;
        let upper = snapshotter.mounts(&self.scope, &entry.snapshot_key).await?;
        self.leased(async |scope: &Scope| {
            let view = format!("{}-checkpoint", entry.snapshot_key);
            let lower: Vec<Mount> = match below.as_str() {
                "" => Vec::new(),
                parent => {
                    let _ = snapshotter.remove(scope, &view).await; // of a daemon that was killed
                    snapshotter.view(scope, &view, parent, Labels::new()).await?
                }
            };
            let compare = Compare { media_type: media_type::OCI_LAYER.to_owned(), ..Compare::default() };
            let layer = storage.differ.compare(scope, &lower, &upper, compare).await;
            if !below.is_empty() {
                snapshotter.remove(scope, &view).await?;
            }
            copy_blob(self, scope, &layer?.digest, to).await
        })
        .await
        .context(|| "the files that it changed")
    }

    /// Works under a lease of its own, which ends with what it keeps.
    pub(super) async fn leased<T>(&self, work: impl AsyncFnOnce(&Scope) -> Result<T>) -> Result<T> {
        let leases = &self.storage()?.leases;
        // An end for the case that the daemon does not come to it.
        let expire = time(SystemTime::now() + super::USUAL * 6);
        let labels = [(kevel_contract::lease::LABEL_EXPIRE.to_owned(), expire)].into();
        let lease = leases.create(&self.scope, "", labels).await?;
        let done = work(&self.scope.with_lease(lease.id.clone())).await;
        if let Err(error) = leases.delete(&self.scope, &lease.id, true).await {
            tracing::warn!(lease = lease.id, error = error.chain(), "a lease stays until it expires");
        }
        done
    }
}

async fn copy_blob(server: &Server, scope: &Scope, digest: &Digest, to: &Path) -> Result<()> {
    let blob = server.storage()?.content.open(scope, digest).await?;
    let failed = |error| Error::io(format!("writing {}", to.display()), error);
    let mut file = tokio::fs::File::create(to).await.map_err(failed)?;
    let mut at = 0;
    while at < blob.size() {
        let piece = blob.read_at(at, PIECE).await?;
        if piece.is_empty() {
            return Err(Error::data_loss(format!("blob {digest} ends early, at {at} bytes")));
        }
        at += piece.len() as u64;
        tokio::io::AsyncWriteExt::write_all(&mut file, &piece).await.map_err(failed)?;
    }
    tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(failed)
}

fn write(path: &Path, data: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| file.write_all(data));
    written.map_err(|error| Error::io(format!("writing {}", path.display()), error))
}

/// A time as RFC 3339 writes it, in whole seconds.
fn time(at: SystemTime) -> String {
    prost_types::Timestamp { nanos: 0, ..at.into() }.to_string()
}

/// What checkpointctl and other runtimes read first.
fn config_dump(container: &Container, entry: &Entry) -> serde_json::Value {
    let record = &container.record;
    let asked = record.config.image.clone().unwrap_or_default();
    let nanos = |at: i64| SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(u64::try_from(at).unwrap_or(0));
    json!({
        "id": record.id,
        "name": record.config.metadata.clone().unwrap_or_default().name,
        "rootfsImage": asked.image,
        "rootfsImageRef": record.image_id,
        "rootfsImageName": entry.image,
        "runtime": entry.runtime.name,
        "createdTime": time(nanos(record.created_at)),
        "checkpointedTime": time(nanos(identity::now())),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": false,
    })
}

/// ContainerStatus, as containerd's archives have it.
fn status_dump(server: &Server, container: &Container) -> serde_json::Value {
    let status = server.describe_container(container);
    let metadata = status.metadata.unwrap_or_default();
    json!({
        "id": status.id,
        "metadata": { "name": metadata.name, "attempt": metadata.attempt },
        "state": status.state,
        "created_at": status.created_at,
        "started_at": status.started_at,
        "image": { "image": status.image.unwrap_or_default().image },
        "image_ref": status.image_ref,
        "labels": status.labels,
        "annotations": status.annotations,
        "log_path": status.log_path,
    })
}

/// The names of what was gathered. Blocks.
pub(super) fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let failed = |error| Error::io(format!("listing {}", dir.display()), error);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort();
    Ok(names)
}
