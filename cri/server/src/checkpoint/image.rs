//! Checkpoints in the form of an OCI image, which registries keep: its layers hold the files of an archive, and an annotation
//! says so. They are looked at with the same eyes as an archive, in a view of the layers.

use std::{fs, io, path::Path, sync::Arc};

use kevel_contract::Scope;
use kevel_model::{Error, Labels, Result};
use tar::EntryType;

use super::{
    archive::{self, ENTRIES, IMAGES, Show},
    restore::{Saved, Source},
};
use crate::{config::Handler, files::blocking, identity, image::Image, server::Server};

impl Server {
    /// Reads what a checkpoint says of itself that is an image, once it is known that it can be restored here.
    pub(crate) async fn saved_image(
        &self,
        field: &'static str,
        image: &Arc<Image>,
        handler: &Handler,
    ) -> Result<Saved> {
        self.may_checkpoint(handler).await?;
        let snapshotter = self.snapshotter_of(handler);
        let what = format!("{field}: image {:?}", image.name());
        let peek = move |root: &Path| archive::contents(&what, |show| each(&what, root, show));
        let contents = self.with_files(field, image, &snapshotter, peek).await?;
        Ok(Saved { field, source: Source::Image { image: image.clone(), snapshotter }, contents })
    }

    /// Takes what restoring needs from an image into the directory `to`, which is empty.
    pub(super) async fn take_from_image(
        &self,
        field: &'static str,
        image: &Image,
        snapshotter: &str,
        to: &Path,
    ) -> Result<()> {
        let (what, to) = (format!("{field}: image {:?}", image.name()), to.to_owned());
        let take = move |root: &Path| archive::take(&to, |show| each(&what, root, show));
        self.with_files(field, image, snapshotter, take).await
    }

    /// Shows the files of an image, mounted for that only.
    async fn with_files<T: Send + 'static>(
        &self,
        field: &str,
        image: &Image,
        snapshotter: &str,
        with: impl FnOnce(&Path) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if image.chain_id.is_empty() {
            return Err(Error::invalid_argument(format!("{field}: image {:?} has no files", image.name())));
        }
        self.images.unpacked(image, snapshotter).await?;
        let (snapshotter, temporary) = (self.snapshotter(snapshotter)?, self.settings.files.temporary());
        let key = format!("checkpoint-image-{}", identity::new_id()?);
        self.leased(async |scope: &Scope| {
            let mounts = snapshotter.view(scope, &key, &image.chain_id, Labels::new()).await?;
            let done = blocking(move || kevel_mount::with_temp_mount(&temporary, &mounts, with)).await;
            snapshotter.remove(scope, &key).await?;
            done
        })
        .await
    }
}

/// Shows every file of a checkpoint below `root`, which nobody changes meanwhile, under its name. Blocks.
fn each(what: &str, root: &Path, show: &mut Show<'_>) -> Result<()> {
    let shown = names(root)
        .and_then(|names| names.iter().try_for_each(|name| show(name, &mut archive::open(&root.join(name))?)));
    shown.map_err(|error| Error::invalid_argument(format!("{what} can't be restored from")).with_source(error))
}

/// The names of files, and of those in the directory of images. Everything that an archive may not hold is refused.
fn names(root: &Path) -> io::Result<Vec<String>> {
    let (mut names, mut count) = (Vec::new(), 0_usize);
    for (dir, before) in [(root.to_owned(), String::new()), (root.join(IMAGES), format!("{IMAGES}/"))] {
        // Its own kind has been looked at in the round before.
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !before.is_empty() => break,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let mut name = before.clone().into_bytes();
            name.extend(entry.file_name().as_encoded_bytes());
            let kind = match entry.file_type()? {
                kind if kind.is_file() => EntryType::Regular,
                kind if kind.is_dir() => EntryType::Directory,
                _ => EntryType::Symlink,
            };
            names.extend(archive::plain(&name, kind)?);
            count += 1;
            if count > ENTRIES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it has too many entries"));
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn files(root: &Path) {
        fs::create_dir_all(root.join("checkpoint")).unwrap();
        fs::create_dir(root.join("artifacts")).unwrap();
        for (name, data) in
            [("checkpoint/core-1.img", "memory"), ("config.dump", "{\"name\":\"n\"}"), ("spec.dump", "{}")]
        {
            fs::write(root.join(name), data).unwrap();
        }
    }

    #[test]
    fn files_are_taken_as_from_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let (root, to) = (dir.path().join("root"), dir.path().join("to"));
        files(&root);
        fs::create_dir(&to).unwrap();
        assert_eq!(archive::contents("f", |show| each("f", &root, show)).unwrap().config.name, "n");
        archive::take(&to, |show| each("f", &root, show)).unwrap();
        assert_eq!(fs::read_to_string(to.join("checkpoint/core-1.img")).unwrap(), "memory");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    }

    #[test]
    fn what_an_archive_may_not_hold_is_refused() {
        let refused = |change: &dyn Fn(&Path), why: &str| {
            let dir = tempfile::tempdir().unwrap();
            files(dir.path());
            change(dir.path());
            let error = archive::contents("config.image.image: image \"i\"", |show| {
                each("config.image.image: image \"i\"", dir.path(), show)
            });
            let said = error.unwrap_err().chain();
            assert!(said.starts_with("config.image.image: image \"i\"") && said.contains(why), "{said}");
        };
        let other = "neither a file nor a directory";
        refused(&|root| symlink("/etc/shadow", root.join("checkpoint/pages-1.img")).unwrap(), other);
        refused(&|root| symlink("/etc", root.join("etc")).unwrap(), other);
        refused(
            &|root| {
                fs::remove_dir_all(root.join("checkpoint")).unwrap();
                symlink("/etc", root.join("checkpoint")).unwrap();
            },
            other,
        );
        refused(&|root| fs::write(root.join("deleted.files"), "").unwrap(), "lists removed files");
        refused(&|root| fs::remove_file(root.join("config.dump")).unwrap(), "has no config.dump");
        refused(&|root| fs::write(root.join("spec.dump"), "{").unwrap(), "spec.dump in it");
    }
}
