//! What is otherwise when a container is made from a checkpoint: CreateContainer takes what it needs from an archive or an image and
//! puts the container's changed files into its snapshot, StartContainer tells the shim where the images are.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::BytesMut;
use kevel_contract::{
    Scope,
    content::{Begin, Commit},
    diff::Apply,
};
use kevel_cri_spec::Spec;
use kevel_model::{Any, Context as _, Descriptor, Error, Labels, Mount, Result, media_type};
use tokio::io::AsyncReadExt as _;

use super::{
    archive::{self, CHANGES, Contents, IMAGES},
    cgroup::Kernel,
    criu,
};
use crate::{
    config::Handler,
    files::{blocking, remove_dir},
    image::Image,
    reach,
    server::Server,
};

/// Archives are copied in such pieces.
const PIECE: usize = 1 << 20;

/// A checkpoint that a container is to be made from.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(super) field: &'static str,
    pub(super) source: Source,
    pub(super) contents: Contents,
}

/// Where its files are.
#[derive(Debug)]
pub(super) enum Source {
    /// An archive at a path of the node.
    Archive(String),
    /// An image, to be looked at with that snapshotter.
    Image { image: Arc<Image>, snapshotter: String },
}

impl Server {
    /// Reads what an archive says of itself, once it is known that it can be restored here.
    pub(crate) async fn saved(&self, field: &'static str, path: &str, handler: &Handler) -> Result<Saved> {
        self.may_checkpoint(handler).await?;
        let at = path.to_owned();
        // The time is for a path that answers; an archive of gigabytes is skipped through.
        let contents = self.reach.look(self.settings.config.host_path_timeout, move || archive::peek(field, &at));
        Ok(Saved { field, source: Source::Archive(path.to_owned()), contents: contents.await? })
    }

    /// The image that a checkpoint's container was made from.
    pub(crate) fn image_of(&self, saved: &Saved) -> Result<Arc<Image>> {
        let config = &saved.contents.config;
        let names = [&config.image_ref, &config.image_name, &config.image];
        let found = names.into_iter().filter(|name| !name.is_empty()).find_map(|name| self.images.find(name).ok());
        found.ok_or_else(|| {
            Error::failed_precondition(format!(
                "{}: the image that the checkpoint was made of is not here: {} ({})",
                saved.field, config.image_name, config.image_ref
            ))
        })
    }

    /// Takes what is needed from a checkpoint, and gives the container's files the changes that it had made.
    pub(crate) async fn prepare_restore(&self, id: &str, saved: &Saved, rootfs: &[Mount]) -> Result<()> {
        let dir = self.restore_dir(id);
        let (field, at) = (saved.field, dir.clone());
        blocking(move || {
            remove_dir(&at)?;
            let make = DirBuilder::new().mode(0o700).create(&at);
            make.map_err(|error| Error::io(format!("making directory {}", at.display()), error))
        })
        .await?;
        match &saved.source {
            Source::Archive(path) => {
                let (path, at) = (path.clone(), dir.clone());
                let unpack = move || {
                    reach::at(field, &path)?;
                    archive::unpack(field, &path, &at)
                };
                self.reach.look(super::USUAL, unpack).await?;
            }
            Source::Image { image, snapshotter } => self.take_from_image(field, image, snapshotter, &dir).await?,
        }
        let changes = dir.join(CHANGES);
        let there = changes.clone();
        if !blocking(move || Ok(there.exists())).await? {
            return Ok(());
        }
        let storage = self.storage()?;
        self.leased(async |scope: &Scope| {
            let layer = self.keep(scope, id, &changes).await?;
            storage.differ.apply(scope, &layer, rootfs, Apply::default()).await
        })
        .await
        .context(|| format!("{field}: the files that the container had changed"))?;
        blocking(move || std::fs::remove_file(&changes).map_err(|error| Error::io("removing a layer", error))).await
    }

    /// Puts a layer into the content store, where the scope's lease keeps it.
    async fn keep(&self, scope: &Scope, id: &str, layer: &Path) -> Result<Descriptor> {
        let content = &self.storage()?.content;
        let failed = |error| Error::io(format!("reading {}", layer.display()), error);
        let mut file = tokio::fs::File::open(layer).await.map_err(failed)?;
        let reference = format!("restore-{id}");
        let mut ingest = content.begin(scope, Begin { reference: reference.clone(), ..Begin::default() }).await?;
        ingest.truncate(0).await?;
        loop {
            let mut piece = BytesMut::with_capacity(PIECE);
            if file.read_buf(&mut piece).await.map_err(failed)? == 0 {
                break;
            }
            ingest.write(piece.freeze()).await?;
        }
        let (digest, size) = (ingest.digest().await?, ingest.status().offset);
        let commit = Commit { size, expected: Some(digest.clone()), labels: Labels::new() };
        match ingest.commit(commit).await {
            Err(error) if !error.is_already_exists() => {
                drop(ingest);
                let _ = content.abort(scope, &reference).await; // the error that follows matters more
                Err(error)
            }
            _ => Ok(Descriptor::new(media_type::OCI_LAYER, digest, size)),
        }
    }

    fn restore_dir(&self, id: &str) -> PathBuf {
        self.settings.files.container(id).join("restore")
    }

    /// Where the images are of a container that is to be restored and was not yet.
    pub(crate) async fn to_restore(&self, id: &str) -> Result<Option<PathBuf>> {
        let dir = self.restore_dir(id);
        blocking(move || match dir.join(IMAGES).symlink_metadata() {
            Ok(_) => Ok(Some(dir)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("looking for {}", dir.display()), error)),
        })
        .await
    }

    /// The processes of a restored container are in its own cgroup, where they have its limits and can be ended. `path` is its
    /// cgroup by its specification; systemd's are left to it.
    pub(crate) async fn settle(&self, id: &str, first: u32, path: Option<String>) -> Result<()> {
        let Some(path) = path.filter(|path| path.starts_with('/')) else { return Ok(()) };
        let moved = blocking(move || {
            let moved = Kernel::of_node().map_or(Ok(false), |kernel| kernel.settle(first, &path));
            moved.map_err(|error| Error::io(format!("moving restored processes to cgroup {path}"), error))
        });
        if moved.await? {
            tracing::info!(container = id, "restored processes moved to the container's own cgroup");
        }
        Ok(())
    }

    /// The container runs: the images, which are as large as its memory, go.
    pub(crate) async fn restored(&self, id: &str, dir: PathBuf) {
        if let Err(error) = blocking(move || remove_dir(&dir)).await {
            tracing::warn!(container = id, error = error.chain(), "what it was restored from stays as long as it does");
        }
    }
}

impl Saved {
    /// The name that the container had in its pod.
    pub(crate) fn name(&self) -> &str {
        &self.contents.config.name
    }

    /// Refuses a spec that lacks a mount which the processes of the checkpoint have. More would not be seen by them.
    pub(crate) fn fits(&self, spec: &Spec) -> Result<()> {
        let has = |list: &[&str], at: &str| list.contains(&at);
        let new = binds(spec.value());
        let missing: Vec<&str> = binds(&self.contents.spec).into_iter().filter(|at| !has(&new, at)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message =
            format!("config.mounts: the checkpoint has mounts at {}, this container none", missing.join(", "));
        Err(Error::invalid_argument(message))
    }
}

/// Where a spec binds something of the node's.
fn binds(spec: &serde_json::Value) -> Vec<&str> {
    let mounts = spec.pointer("/mounts").and_then(serde_json::Value::as_array);
    let is_bind = |mount: &&serde_json::Value| {
        let options = mount["options"].as_array();
        mount["type"] == "bind" || options.is_some_and(|all| all.iter().any(|one| one == "bind" || one == "rbind"))
    };
    mounts.into_iter().flatten().filter(is_bind).filter_map(|mount| mount["destination"].as_str()).collect()
}

/// The options of a handler's shim with the place of images, on top of those that a container has anyway.
pub(crate) fn options(handler: &Handler, own: Option<Any>, dir: &Path) -> Result<Any> {
    handler.options_with_images(own, &dir.join(IMAGES), dir)
}

/// What CRIU said of a failed restore.
pub(crate) async fn complaint(dir: &Path) -> Option<String> {
    let log = dir.join("restore.log");
    blocking(move || Ok(criu::complaint(&log))).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mounts_of_the_checkpoint_must_be_there() {
        let spec = |at: &[&str]| {
            let mounts: Vec<_> = at.iter().map(|at| json!({ "destination": at, "type": "bind" })).collect();
            let more = json!({ "destination": "/proc", "type": "proc" });
            json!({ "mounts": mounts.into_iter().chain([more]).collect::<Vec<_>>() })
        };
        let contents = Contents { config: archive::Config::default(), spec: spec(&["/a", "/b"]) };
        let saved = Saved { field: "config.image.image", source: Source::Archive("/x".into()), contents };
        saved.fits(&Spec::new(spec(&["/b", "/a", "/c"])).unwrap()).unwrap();
        let error = saved.fits(&Spec::new(spec(&["/b"])).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("config.mounts: ") && error.contains("at /a,"), "{error}");
    }
}
