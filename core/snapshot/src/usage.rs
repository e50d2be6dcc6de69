//! What a tree uses on disk.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use kevel_contract::snapshot::Usage;

use crate::error::{Error, Result};

/// Blocks of everything at and below `root` that lies on the same file system, every inode counted once. Entries that
/// go away meanwhile are passed over, as an active snapshot may be in use, and so is what no path can name any more.
pub(crate) fn measure(root: &Path) -> Result<Usage> {
    let top = fs::symlink_metadata(root).map_err(|error| Error::io(format!("measuring {root:?}"), error))?;
    let device = top.dev();
    let mut usage = Usage { size: top.blocks() * 512, inodes: 1 };
    let mut linked = HashSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        measure_one(&directory, device, &mut usage, &mut linked, &mut directories)
            .or_else(|error| if is_passed_over(&error) { Ok(()) } else { Err(error) })
            .map_err(|error| Error::io(format!("measuring {directory:?}"), error))?;
    }
    Ok(usage)
}

fn is_passed_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename)
}

fn measure_one(
    directory: &Path,
    device: u64,
    usage: &mut Usage,
    linked: &mut HashSet<u64>,
    directories: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Err(error) if is_passed_over(&error) => continue,
            other => other?,
        };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            directories.push(entry.path());
        } else if metadata.nlink() > 1 && !linked.insert(metadata.ino()) {
            continue;
        }
        usage.size += metadata.blocks() * 512;
        usage.inodes += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_an_inode_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let empty = measure(&root).unwrap();
        assert_eq!(empty.inodes, 1);
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/a"), vec![1; 100_000]).unwrap();
        fs::hard_link(root.join("sub/a"), root.join("b")).unwrap();
        std::os::unix::fs::symlink("b", root.join("c")).unwrap();
        let usage = measure(&root).unwrap();
        assert_eq!(usage.inodes, 4);
        assert!((100_000..150_000).contains(&usage.size), "{usage:?}");
        assert!(measure(&dir.path().join("missing")).is_err());
    }
}
