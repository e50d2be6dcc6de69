//! The images that a task is restored from: where a request says that they are, and unpacking them beside the bundle.
//!
//! The shim is told of them by Create and reads them in Start. They are removed with the bundle, or once the task runs.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use kevel_contract::{
    Scope,
    diff::Apply,
    task::{CHECKPOINT_IMAGES, Create},
};
use kevel_model::{Context as _, Descriptor, Error, Result, media_type};
use kevel_proto::{any, containerd::runc::v1::Options};

use super::{
    TaskManager,
    checkpoint::{absolute, blocking, folder, is_plain},
};
use crate::{Bundle, bundle::remove_dir, wire};

/// Where images are.
pub(super) enum Images {
    /// Nowhere: the task begins anew.
    None,
    /// In a directory of the caller's.
    Folder(String),
    /// In the content store.
    Content(Box<Descriptor>),
}

/// Where the request says that images are. Nothing has been made yet, so what is wrong with it is said here.
pub(super) async fn images(tasks: &TaskManager, scope: &Scope, create: &Create) -> Result<Images> {
    if let Some(path) = named(create)? {
        return Ok(Images::Folder(path));
    }
    let Some(checkpoint) = &create.checkpoint else { return Ok(Images::None) };
    if checkpoint.media_type != CHECKPOINT_IMAGES {
        let message = format!("checkpoint: media type {:?} is not {CHECKPOINT_IMAGES:?}", checkpoint.media_type);
        return Err(Error::invalid_argument(message));
    }
    let info = tasks.checkpoints()?.content.info(scope, &checkpoint.digest).await.context(|| "checkpoint")?;
    if info.size != checkpoint.size {
        let message = format!("checkpoint: {} has {} bytes, not {}", info.digest, info.size, checkpoint.size);
        return Err(Error::failed_precondition(message));
    }
    Ok(Images::Content(Box::new(checkpoint.clone())))
}

impl Images {
    /// The directory for the shim, if the task is to be restored.
    pub(super) async fn unpack(self, tasks: &TaskManager, scope: &Scope, bundle: &Bundle) -> Result<Option<String>> {
        let images = match self {
            Self::None => return Ok(None),
            Self::Folder(path) => return Ok(Some(path)),
            Self::Content(images) => *images,
        };
        let path = place(bundle);
        let (made, checked) = (path.clone(), path.clone());
        blocking(move || {
            let make = DirBuilder::new().mode(0o700).create(&made);
            make.map_err(|error| Error::io(format!("making {}", made.display()), error))
        })
        .await?;
        let archive = Descriptor::new(media_type::OCI_LAYER, images.digest, images.size);
        let (differ, mounts) = (&tasks.checkpoints()?.differ, [folder(&path)]);
        differ.apply(scope, &archive, &mounts, Apply::default()).await.context(|| "unpacking the checkpoint")?;
        blocking(move || is_plain(&checked)).await?;
        Ok(Some(path.display().to_string()))
    }
}

/// Removes what a task was restored from: it runs, and they are as large as its memory.
pub(super) async fn discard(bundle: &Bundle) {
    let path = place(bundle);
    if let Err(error) = blocking(move || Ok(remove_dir(&path)?)).await {
        tracing::warn!(error = error.chain(), "the images of a restored task stay as long as it does");
    }
}

fn place(bundle: &Bundle) -> PathBuf {
    Path::new(&bundle.work).join("restore")
}

/// The directory that the options name for the images.
fn named(create: &Create) -> Result<Option<String>> {
    let options = create.options.clone().map(wire::any);
    let Some(options) = options.filter(any::is::<Options>) else { return Ok(None) };
    let options: Options = any::unpack(&options)
        .map_err(|error| Error::invalid_argument("options: not what runc's shim takes").with_source(error))?;
    absolute("options.criu_image_path", &options.criu_image_path)?;
    Ok(Some(options.criu_image_path).filter(|path| !path.is_empty()))
}
