//! Apply: a blob of the content store becomes files behind mounts.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use kevel_contract::{Scope, diff::Apply};
use kevel_model::{Any, Context as _, Descriptor, Error, Mount, Result, media_type};
use tokio::runtime::Handle;

use super::{
    Walking, blocking,
    bridge::{BlobReader, Waiting},
    target::Target,
};
use crate::{Layer, Options, Processors, apply_layer, layer::check_media_type};

impl Walking {
    /// Applies `layer` to `mounts` and answers the descriptor of the uncompressed layer. "Unimplemented" for media
    /// types that neither are archives nor become some by a stream processor, so that another differ is asked.
    pub(super) async fn apply_layer(
        &self,
        scope: &Scope,
        layer: &Descriptor,
        mounts: &[Mount],
        apply: Apply,
    ) -> Result<Descriptor> {
        if !self.processors.can_read(&layer.media_type) {
            check_media_type(&layer.media_type)?;
        }
        let blob =
            self.content.open(scope, &layer.digest).await.context(|| format!("opening layer {}", layer.digest))?;
        let waiting = Waiting::new();
        let work = Work {
            source: BlobReader::new(blob, Handle::current(), waiting.gone()),
            layer: layer.clone(),
            processors: self.processors.clone(),
            payloads: apply.payloads,
            mounts: mounts.to_vec(),
            temporary: self.mounts.clone(),
            sync: apply.sync_fs,
        };
        let applied = blocking(|| work.run()).await.context(|| format!("applying layer {}", layer.digest))?;
        drop(waiting);
        if applied.size != layer.size && check_media_type(&layer.media_type).is_ok() {
            let text = format!("layer {} has {} bytes, not the {} stated", layer.digest, applied.size, layer.size);
            return Err(Error::failed_precondition(text));
        }
        tracing::debug!(layer = %layer.digest, diff_id = %applied.diff_id, entries = applied.applied.entries, "layer applied");
        Ok(Descriptor::new(media_type::OCI_LAYER, applied.diff_id, applied.applied.archive))
    }
}

/// Everything that applying a layer needs, for a thread that may block.
struct Work {
    source: BlobReader,
    layer: Descriptor,
    processors: Processors,
    payloads: BTreeMap<String, Any>,
    mounts: Vec<Mount>,
    temporary: PathBuf,
    sync: bool,
}

impl Work {
    fn run(self) -> Result<Layer> {
        match Target::of(&self.mounts) {
            Target::Directory { root, form, lowers } => {
                let options = Options { form, lowers, ..Options::default() };
                self.write(&root, &options)
            }
            Target::Mounted => {
                let (temporary, mounts) = (self.temporary.clone(), self.mounts.clone());
                kevel_mount::with_temp_mount(&temporary, &mounts, |root| {
                    self.write(root, &Options::default()).map_err(Failure::Apply)
                })
                .map_err(Error::from)
            }
        }
    }

    fn write(self, root: &Path, options: &Options) -> Result<Layer> {
        let directory = File::open(root).map_err(|error| Error::io(format!("opening {}", root.display()), error))?;
        let archive = self.processors.open(self.source, &self.layer, &self.payloads)?;
        let layer = apply_layer(archive.source, &archive.media_type, &directory, options)?;
        if self.sync {
            rustix::fs::syncfs(&directory)
                .map_err(|error| Error::io(format!("flushing {}", root.display()), error.into()))?;
        }
        Ok(layer)
    }
}

/// Why work on mounts failed.
pub(super) enum Failure {
    Mount(kevel_mount::Error),
    Apply(Error),
}

impl From<kevel_mount::Error> for Failure {
    fn from(error: kevel_mount::Error) -> Self {
        Self::Mount(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Mount(error) => error.into(),
            Failure::Apply(error) => error,
        }
    }
}
