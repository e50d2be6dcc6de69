//! Artifacts as volumes: what is not an image but was put into a registry like one (a model, a bundle of policies). Each of its
//! blobs is a file, under the title that it has, or its digest.
//!
//! The files are copied once for each pod, to the disk that the daemon's root is on, and go with the pod.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use kevel_contract::content::Blob;
use kevel_model::{Digest, Error, Result};

use crate::{
    files::{self, blocking},
    image::{ArtifactFile, Image},
    server::Server,
};

/// So much is read at once.
const CHUNK: usize = 4 << 20;

/// Where a pod's copies are.
pub(super) fn dir(server: &Server, pod: &str) -> PathBuf {
    server.settings.files.sandbox(pod).join("artifacts")
}

/// The files of an artifact in a directory of the pod's. The caller has locked the directory.
pub(super) async fn place(server: &Server, pod: &str, image: &Image, artifact: &[ArtifactFile]) -> Result<PathBuf> {
    let target = dir(server, pod).join(image.id.split_once(':').map_or(image.id.as_str(), |(_, hex)| hex));
    let _alone = server.locks.alone(&target.to_string_lossy()).await;
    let at = target.clone();
    if blocking(move || Ok(at.is_dir())).await? {
        return Ok(target);
    }
    // What a crash left of an attempt, and a name that says whole: the directory appears with everything in it.
    let draft = target.with_extension("draft");
    let at = draft.clone();
    let begin = move || {
        files::remove_dir(&at)?;
        files::make_dir(&at)
    };
    blocking(begin).await?;
    if let Err(error) = fill(server, &draft, artifact).await {
        let at = draft.clone();
        blocking(move || files::remove_dir(&at)).await?;
        return Err(error);
    }
    let (from, to) = (draft, target.clone());
    blocking(move || {
        fs::rename(&from, &to).map_err(|error| Error::io(format!("naming directory {}", to.display()), error))
    })
    .await?;
    Ok(target)
}

async fn fill(server: &Server, dir: &Path, artifact: &[ArtifactFile]) -> Result<()> {
    for file in artifact {
        let path = dir.join(relative(file)?);
        let blob = server.images.blob(&file.digest).await?;
        copy(blob.as_ref(), &path).await.map_err(|error| error.context(format!("copying blob {}", file.digest)))?;
    }
    Ok(())
}

/// The path that an artifact's file wants, which does not lead out of the volume.
fn relative(file: &ArtifactFile) -> Result<PathBuf> {
    if file.title.is_empty() {
        return Ok(PathBuf::from(by_digest(&file.digest)));
    }
    let path = Path::new(&file.title);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let named = path.components().any(|part| matches!(part, Component::Normal(_)));
    if !inside || !named || file.title.contains('\0') || file.title.len() > 4096 {
        return Err(Error::invalid_argument(format!(
            "the title {:?} of blob {} is not a path below a volume",
            file.title, file.digest
        )));
    }
    Ok(path.to_owned())
}

fn by_digest(digest: &Digest) -> String {
    digest.as_str().replace(':', "-")
}

/// Copies a blob, piece by piece, into a file that is not there yet.
async fn copy(blob: &dyn Blob, path: &Path) -> Result<()> {
    let at = path.to_owned();
    let doing = |path: &Path| format!("writing {}", path.display());
    let mut file = blocking(move || {
        at.parent().map_or(Ok(()), files::make_dir)?;
        File::create_new(&at).map_err(|error| Error::io(doing(&at), error))
    })
    .await?;
    let (mut offset, size) = (0, blob.size());
    while offset < size {
        let data = blob.read_at(offset, CHUNK).await?;
        if data.is_empty() {
            return Err(Error::data_loss(format!("it ends at {offset} of {size} bytes")));
        }
        offset += data.len() as u64;
        let at = path.to_owned();
        file = blocking(move || {
            file.write_all(&data).map_err(|error| Error::io(doing(&at), error))?;
            Ok(file)
        })
        .await?;
    }
    let at = path.to_owned();
    blocking(move || {
        file.set_permissions(fs::Permissions::from_mode(0o444)).map_err(|error| Error::io(doing(&at), error))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_stay_in_the_volume() {
        let file = |title: &str| ArtifactFile { title: title.to_owned(), digest: Digest::sha256(b"x") };
        for good in ["model.bin", "a/b/c", "./a", "a b", "..a"] {
            assert_eq!(relative(&file(good)).unwrap(), PathBuf::from(good), "{good}");
        }
        assert!(relative(&file("")).unwrap().to_str().unwrap().starts_with("sha256-"));
        for bad in ["/etc/passwd", "..", "a/../../b", ".", "a\0b", &"x".repeat(5000)] {
            assert!(relative(&file(bad)).unwrap_err().to_string().contains("is not a path below a volume"), "{bad}");
        }
    }
}
