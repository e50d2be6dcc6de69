//! Deletes trees that strangers made: however deep they are nested, with few descriptors and little stack.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};

use crate::error::{Error, Result};

/// How many directories are held open inside each other. A tree deeper than this is cut, and the rest of it deleted
/// for itself.
const DEPTH: u32 = 32;

/// Deletes what is at `path`, a whole tree or a single file; none is fine. Symbolic links are not followed. While it
/// runs, parts of a deep tree have names of their own beside `path`, beginning with its name.
pub(crate) fn delete(path: &Path) -> Result<()> {
    delete_here(path).map_err(|error| Error::io(format!("deleting {path:?}"), error))
}

fn delete_here(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = match open(CWD, parent) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut cut = Cut { top: parent.as_fd(), prefix: name.as_encoded_bytes(), names: vec![], count: 0 };
    remove(parent.as_fd(), name.as_encoded_bytes(), FileType::Unknown, 0, &mut cut)?;
    while let Some(name) = cut.names.pop() {
        remove(parent.as_fd(), &name, FileType::Directory, 0, &mut cut)?;
    }
    Ok(())
}

/// Directories that were too deep, moved to where deleting begins.
struct Cut<'a> {
    top: BorrowedFd<'a>,
    prefix: &'a [u8],
    names: Vec<Vec<u8>>,
    count: u64,
}

fn open(at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn remove(at: BorrowedFd<'_>, name: &[u8], kind: FileType, depth: u32, cut: &mut Cut<'_>) -> rustix::io::Result<()> {
    if kind != FileType::Directory {
        match unlinkat(at, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error),
        }
    }
    match unlinkat(at, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    if depth == DEPTH {
        return cut.off(at, name);
    }
    let directory = open(at, name)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if child != b"." && child != b".." {
            remove(directory.as_fd(), child, entry.file_type(), depth + 1, cut)?;
        }
    }
    unlinkat(at, name, AtFlags::REMOVEDIR)
}

impl Cut<'_> {
    fn off(&mut self, at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        loop {
            let new = [self.prefix, format!("-{}", self.count).as_bytes()].concat();
            self.count += 1;
            match renameat(at, name, self.top, &new[..]) {
                // One of the same name is left from a delete that was interrupted.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                other => {
                    other?;
                    self.names.push(new);
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn deletes_whatever_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), b"x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/b/file"), b"x").unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        for path in [tree, dir.path().join("missing"), dir.path().join("missing/too")] {
            delete(&path).unwrap();
            assert!(!path.exists());
        }
        fs::write(dir.path().join("file"), b"x").unwrap();
        delete(&dir.path().join("file")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(kept.join("file").exists());
    }

    #[test]
    fn deletes_what_is_deeper_than_any_path() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        // A name that a cut part would get is taken.
        fs::create_dir_all(dir.path().join("tree-0/full")).unwrap();
        let mut at = open(CWD, &tree).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "directory", Mode::from_raw_mode(0o755)).unwrap();
            at = open(&at, "directory").unwrap();
        }
        drop(at);
        assert!(crate::usage::measure(&tree).unwrap().inodes > 100, "counts what has a path");
        delete(&tree).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["tree-0"]);
    }
}
