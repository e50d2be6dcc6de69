//! Compare: what some mounts have other than others becomes a blob of the content store.

use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use kevel_contract::{
    Scope,
    content::{Begin, Commit, Ingest},
    diff::Compare,
};
use kevel_model::{Context as _, Descriptor, Error, Labels, Mount, Result, media_type};
use kevel_mount::{TempMount, read_only};

use super::{
    Walking, blocking,
    bridge::PieceWriter,
    target::{Overlay, is_unusual},
};
use crate::{
    create::{Options, Packed, Upper, Written, create, pack},
    layer::Compression,
};

/// The label of a layer that says what its uncompressed form is called.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Walking {
    /// Makes a layer of what `upper` has other than `lower`, in the content store. A layer that is there already is
    /// found again.
    pub(super) async fn make_layer(
        &self,
        scope: &Scope,
        lower: &[Mount],
        upper: &[Mount],
        compare: Compare,
    ) -> Result<Descriptor> {
        let (media_type, compression) = kind(&compare.media_type)?;
        let own = compare.reference.is_empty();
        let reference = if own { reference() } else { compare.reference.clone() };
        let mut ingest = self.content.begin(scope, Begin { reference: reference.clone(), ..Begin::default() }).await?;
        let work = Work {
            lower: lower.to_vec(),
            upper: upper.to_vec(),
            temporary: self.mounts.clone(),
            compression,
            latest: compare.source_date_epoch,
        };
        let written = write(&mut *ingest, work).await.context(|| "comparing mounts");
        let done = match written {
            Ok(packed) => self.commit(scope, &mut *ingest, packed, compare.labels, media_type).await,
            Err(error) => Err(error),
        };
        drop(ingest);
        if done.is_err() && own {
            let _ = self.content.abort(scope, &reference).await; // the error that follows matters more
        }
        done
    }

    async fn commit(
        &self,
        scope: &Scope,
        ingest: &mut dyn Ingest,
        packed: Packed<Written>,
        mut labels: Labels,
        media_type: &str,
    ) -> Result<Descriptor> {
        labels.insert(UNCOMPRESSED.into(), packed.diff_id.to_string());
        let commit = Commit { size: packed.size, expected: Some(packed.digest.clone()), labels: labels.clone() };
        match ingest.commit(commit).await {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {
                let fieldpaths: Vec<_> = labels.keys().map(|key| format!("labels.{key}")).collect();
                let mut info = self.content.info(scope, &packed.digest).await?;
                info.labels = labels;
                self.content.update(scope, info, &fieldpaths).await?;
            }
            Err(error) => return Err(error),
        }
        if packed.value.skipped > 0 {
            tracing::warn!(layer = %packed.digest, sockets = packed.value.skipped, "sockets are not part of a layer");
        }
        Ok(Descriptor::new(media_type, packed.digest, packed.size))
    }
}

/// The media type of the layer to make, and how it is compressed.
fn kind(media_type: &str) -> Result<(&str, Compression)> {
    match media_type {
        "" => Ok((media_type::OCI_LAYER_GZIP, Compression::Gzip)),
        media_type::OCI_LAYER | media_type::DOCKER_LAYER => Ok((media_type, Compression::None)),
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Ok((media_type, Compression::Gzip)),
        media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => Ok((media_type, Compression::Zstd)),
        other => Err(Error::unimplemented(format!("layers of type {other:?} can't be made"))),
    }
}

fn reference() -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("diff-{}-{started}-{number}", std::process::id())
}

/// Runs `work` and writes what comes out of it to `ingest`, from its beginning.
async fn write(ingest: &mut dyn Ingest, work: Work) -> Result<Packed<Written>> {
    ingest.truncate(0).await?;
    let (sink, mut pieces) = PieceWriter::new();
    let work = tokio::spawn(blocking(move || work.run(sink)));
    while let Some(piece) = pieces.recv().await {
        ingest.write(piece).await?;
    }
    work.await.map_err(|error| Error::internal("working on a layer").with_source(error))?
}

/// Everything that comparing needs, for a thread that may block.
struct Work {
    lower: Vec<Mount>,
    upper: Vec<Mount>,
    temporary: PathBuf,
    compression: Compression,
    latest: Option<std::time::SystemTime>,
}

impl Work {
    fn run(self, sink: PieceWriter) -> Result<Packed<Written>> {
        if self.upper.is_empty() {
            return Err(Error::invalid_argument("there are no upper mounts to compare"));
        }
        let lower = match &self.lower[..] {
            [] => None, // everything is new
            mounts => Some(Tree::new(&self.temporary, mounts)?),
        };
        // What an overlay on exactly the lower mounts has changed is in one directory of its own.
        let changes =
            self.upper.first().filter(|_| self.upper.len() == 1).and_then(|upper| changes(&self.lower, upper));
        let (upper, mode) = match changes {
            Some(directory) => (Tree::Directory(directory), Upper::Changes),
            None => (Tree::new(&self.temporary, &self.upper)?, Upper::Complete),
        };
        let open = |tree: &Tree| {
            let path = tree.path();
            File::open(path).map_err(|error| Error::io(format!("opening {}", path.display()), error))
        };
        let (lower_root, upper_root) = (lower.as_ref().map(open).transpose()?, open(&upper)?);
        let options = Options { upper: mode, latest: self.latest };
        let below = lower_root.as_ref().map(|root| root as &dyn AsFd);
        let packed = pack(self.compression, sink, |sink| create(below, &upper_root, sink, &options))?;
        drop((lower_root, upper_root));
        lower.map_or(Ok(()), Tree::close)?;
        upper.close()?;
        Ok(packed)
    }
}

/// A tree to be read.
enum Tree {
    Directory(PathBuf),
    Mounted(TempMount),
}

impl Tree {
    fn new(temporary: &Path, mounts: &[Mount]) -> Result<Self> {
        match mounts {
            [one] if one.kind == "bind" && one.target.is_empty() => Ok(Self::Directory(one.source.clone().into())),
            mounts => Ok(Self::Mounted(TempMount::new(temporary, &read_only(mounts))?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Mounted(mounted) => mounted.path(),
        }
    }

    fn close(self) -> Result<()> {
        match self {
            Self::Mounted(mounted) => Ok(mounted.close()?),
            Self::Directory(_) => Ok(()),
        }
    }
}

/// The directory that holds all that `upper` changes in `lower`, if `upper` is an overlay on just that.
fn changes(lower: &[Mount], upper: &Mount) -> Option<PathBuf> {
    let [lower] = lower else { return None };
    if upper.kind != "overlay" || !upper.target.is_empty() || !lower.target.is_empty() {
        return None;
    }
    if upper.options.iter().chain(&lower.options).any(|option| is_unusual(option)) {
        return None;
    }
    let overlay = Overlay::of(upper)?;
    let below: Vec<PathBuf> = match lower.kind.as_str() {
        "bind" => vec![lower.source.clone().into()],
        "overlay" if lower.is_read_only() => {
            let dirs = lower.options.iter().find_map(|option| option.strip_prefix("lowerdir="))?;
            dirs.split(':').map(PathBuf::from).collect()
        }
        _ => return None,
    };
    (below == overlay.lowers).then_some(overlay.upper)
}
