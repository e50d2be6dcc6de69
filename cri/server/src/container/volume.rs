//! Volumes that an image declares: directories of the daemon's, which begin with what the image has there.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use kevel_model::{Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::record::Volume;

/// Makes the volume's directory and copies the image's content into it. Device nodes and sockets are left out. Blocks.
pub(super) fn fill(root: &Path, volume: &Volume) -> Result<()> {
    let doing = || format!("copying the image's {} to a volume", volume.container_path);
    copy_volume(root, volume).map_err(|error| Error::io(doing(), error))
}

fn copy_volume(root: &Path, volume: &Volume) -> io::Result<()> {
    let to = PathBuf::from(&volume.host_path);
    fs::create_dir_all(&to)?;
    let from = volume.container_path.trim_start_matches('/');
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = File::open(root)?;
    let found = match rustix::fs::openat2(
        &dir,
        if from.is_empty() { "." } else { from },
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    ) {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // What is below the opened directory is walked without following any link.
    let from = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found.as_fd())));
    own(&fs::metadata(&from)?, &to)?;
    copy(&from, &to)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source)?;
        let kind = meta.file_type();
        if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            std::os::unix::fs::lchown(&target, Some(meta.uid()), Some(meta.gid()))?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            copy(&source, &target)?;
            own(&meta, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
            own(&meta, &target)?;
        }
    }
    Ok(())
}

fn own(meta: &fs::Metadata, target: &Path) -> io::Result<()> {
    std::os::unix::fs::chown(target, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(target, fs::Permissions::from_mode(meta.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_begins_with_the_images_content() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("data/sub")).unwrap();
        fs::write(root.join("data/sub/file"), "x").unwrap();
        fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc", root.join("data/link")).unwrap();
        let volume = |path: &str, at: &str| Volume {
            container_path: path.to_owned(),
            host_path: dir.path().join(at).to_string_lossy().into_owned(),
        };
        fill(&root, &volume("/data", "one")).unwrap();
        let one = dir.path().join("one");
        assert_eq!(fs::read_to_string(one.join("sub/file")).unwrap(), "x");
        assert_eq!(fs::read_link(one.join("link")).unwrap(), Path::new("/etc"));
        assert_eq!(fs::metadata(&one).unwrap().mode() & 0o7777, 0o1777);
        fill(&root, &volume("/missing", "two")).unwrap();
        assert!(dir.path().join("two").is_dir());
    }
}
