//! Checkpoint: the shim writes images of a running container into a directory, and from there they go, as one archive,
//! into the content store, unless the caller named the directory.
//!
//! What images hold is the runtime's business. They are packed by the diff service, as layers are: images are the layer
//! that an empty directory lacks.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use kevel_contract::{
    Scope,
    container::Container,
    content::ContentStore,
    diff::{Compare, Differ},
    task::{CHECKPOINT_CONFIG, CHECKPOINT_IMAGES, Checkpoint},
};
use kevel_model::{Context as _, Descriptor, Error, Labels, Mount, Result, media_type};
use kevel_proto::{
    any,
    containerd::runc::v1::CheckpointOptions,
    shim::task::{CheckpointTaskRequest, method},
};
use prost::Message as _;

use super::TaskManager;
use crate::{Shim, bundle::remove_dir, wire};

/// Where images lie while they are packed. No namespace and no container is called so.
const FOLDER: &str = ".checkpoints";

/// How long a shim has to see that what made a checkpoint has been ended.
const ENDING: Duration = Duration::from_secs(5);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// What turns images into content and back.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pub(super) content: ContentStore,
    pub(super) differ: Differ,
    folder: PathBuf,
}

impl Checkpoints {
    /// Checkpoints in `content`, packed and unpacked by `differ`, with scratch space below `root`. What a daemon before
    /// left there is removed.
    pub async fn new(content: ContentStore, differ: Differ, root: &Path) -> crate::Result<Self> {
        let folder = root.join(FOLDER);
        let left = folder.clone();
        let removed = tokio::task::spawn_blocking(move || remove_dir(&left)).await;
        removed.map_err(|error| crate::Error::Invalid(format!("removing old checkpoints: {error}")))??;
        Ok(Self { content, differ, folder })
    }

    /// An empty directory for images, which nobody but root may look into: they hold a container's memory.
    async fn scratch(&self) -> Result<PathBuf> {
        let path = self.folder.join(format!(".{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let make = move || {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map(|()| path.clone()).map_err(|error| Error::io(format!("making {}", path.display()), error))
        };
        blocking(make).await
    }

    /// Puts images and the spec that they belong to into the content store.
    async fn store(&self, scope: &Scope, container: &Container, images: &Path) -> Result<Vec<Descriptor>> {
        let compare = Compare { media_type: media_type::OCI_LAYER.to_owned(), ..Compare::default() };
        let packed = self.differ.compare(scope, &[], &[folder(images)], compare).await;
        let packed = packed.context(|| "packing the images")?;
        let images = Descriptor::new(CHECKPOINT_IMAGES, packed.digest, packed.size);
        let spec = container.spec.clone().map(wire::any).unwrap_or_default().encode_to_vec();
        let size = spec.len() as u64;
        let reference = format!("checkpoint-spec-{}-{}", container.id, NEXT.fetch_add(1, Ordering::Relaxed));
        let digest = self.content.put(scope, &reference, spec.into(), Labels::new()).await;
        let digest = digest.context(|| "storing the spec")?;
        Ok(vec![images, Descriptor::new(CHECKPOINT_CONFIG, digest, size)])
    }
}

impl TaskManager {
    pub(super) async fn checkpoint_task(&self, scope: &Scope, checkpoint: Checkpoint) -> Result<Vec<Descriptor>> {
        let Checkpoint { container_id, options, limit } = checkpoint;
        let options = options.map(wire::any);
        let named = named(options.as_ref())?;
        let shim = self.shim(scope, &container_id).await?;
        if let Some(path) = named {
            self.dump(&shim, path, options, limit).await?;
            return Ok(Vec::new());
        }
        let container = self.containers.get(scope, &container_id).await?;
        let store = self.checkpoints()?;
        let images = store.scratch().await?;
        let made = async {
            self.dump(&shim, images.display().to_string(), options, limit).await?;
            store.store(scope, &container, &images).await.context(|| format!("checkpoint of task {container_id}"))
        };
        let made = made.await;
        if let Err(error) = blocking(move || Ok(remove_dir(&images)?)).await {
            tracing::warn!(
                id = container_id,
                error = error.chain(),
                "the images of a checkpoint stay until the next start"
            );
        }
        made
    }

    async fn dump(
        &self,
        shim: &Shim,
        path: String,
        options: Option<prost_types::Any>,
        limit: Option<Duration>,
    ) -> Result<()> {
        let request = CheckpointTaskRequest { id: shim.id.clone(), path, options };
        let limit = limit.unwrap_or(self.shims.timeouts().checkpoint);
        // A shim that is told the time ends the runtime then, and not CRIU, which goes on alone and holds the container still.
        let call = self.shims.call::<_, ()>(shim, method::CHECKPOINT, &request, Some(limit + ENDING));
        tokio::pin!(call);
        if let Ok(done) = tokio::time::timeout(limit, &mut call).await {
            return Ok(done?);
        }
        self.shims.end_checkpoint(shim).await;
        let late = |_| Error::deadline_exceeded(format!("checkpoint of task {}: not done within {limit:?}", shim.id));
        call.await.map_err(late) // it may have been done at the last moment
    }
}

/// The directory that the options name for the images. Options of other runtimes are theirs to understand.
fn named(options: Option<&prost_types::Any>) -> Result<Option<String>> {
    let Some(options) = options.filter(|options| any::is::<CheckpointOptions>(options)) else { return Ok(None) };
    let options: CheckpointOptions = any::unpack(options)
        .map_err(|error| Error::invalid_argument("options: not what runc's shim takes").with_source(error))?;
    for (field, path) in [("image_path", &options.image_path), ("work_path", &options.work_path)] {
        absolute(&format!("options.{field}"), path)?;
    }
    Ok(Some(options.image_path).filter(|path| !path.is_empty()))
}

/// Checks a path that a request names: shims run in a directory that is none of the caller's.
pub(super) fn absolute(field: &str, path: &str) -> Result<()> {
    if path.is_empty() || Path::new(path).is_absolute() {
        return Ok(());
    }
    Err(Error::invalid_argument(format!("{field}: {path:?} is not an absolute path")))
}

/// A mount that shows a directory as it is.
pub(super) fn folder(path: &Path) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: path.display().to_string(),
        target: String::new(),
        options: vec!["rbind".to_owned(), "rw".to_owned()],
    }
}

/// Runs what blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("working on images").with_source(error)),
    }
}

/// Whether a directory holds files and directories and nothing else. A link among images would make the runtime, which
/// opens them as root, put a file of the node into a container's memory.
pub(super) fn is_plain(path: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("listing {}", path.display()), error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            is_plain(&entry.path())?;
        } else if !kind.is_file() {
            let name = entry.file_name();
            return Err(Error::invalid_argument(format!(
                "checkpoint: {name:?} in it is neither a file nor a directory"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(image_path: &str, work_path: &str) -> prost_types::Any {
        let (image_path, work_path) = (image_path.to_owned(), work_path.to_owned());
        any::pack(&CheckpointOptions { image_path, work_path, ..CheckpointOptions::default() })
    }

    #[test]
    fn options_name_a_directory_or_none() {
        assert_eq!(named(None).unwrap(), None);
        assert_eq!(named(Some(&options("", ""))).unwrap(), None);
        assert_eq!(named(Some(&options("/a", "/b"))).unwrap().as_deref(), Some("/a"));
        let others = prost_types::Any { type_url: "runtimeoptions.v1.Options".into(), value: vec![0xff] };
        assert_eq!(named(Some(&others)).unwrap(), None, "another runtime's options are not read");
        for (bad, field) in [(options("a", ""), "image_path"), (options("/a", "b"), "work_path")] {
            let error = named(Some(&bad)).unwrap_err();
            assert_eq!(error.code(), kevel_model::Code::InvalidArgument);
            assert!(error.chain().contains(field), "{}", error.chain());
        }
        let broken = prost_types::Any { value: vec![0xff], ..options("", "") };
        assert!(named(Some(&broken)).unwrap_err().chain().starts_with("options: "));
    }

    #[test]
    fn images_are_files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/core-1.img"), "x").unwrap();
        is_plain(dir.path()).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", dir.path().join("sub/pages-1.img")).unwrap();
        let error = is_plain(dir.path()).unwrap_err();
        assert!(error.chain().contains("pages-1.img"), "{}", error.chain());
    }
}
