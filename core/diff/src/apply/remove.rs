//! Removing what is in the way of an entry or hidden by a whiteout: without following links, and with one directory
//! open at a time however deep the tree is.

use std::{
    io::BufRead,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{AtFlags, FileType},
    io::Errno,
};

use super::{Applier, Form, Place, dirs, failed};
use crate::{Error, tar::Entry};

impl<R: BufRead> Applier<'_, R> {
    /// Removes whatever is at `place`, if anything; true if that was an overlayfs whiteout.
    pub(super) fn displace(&mut self, entry: &Entry, place: &Place) -> Result<bool, Error> {
        let fail = failed(entry, "removing what is in its place");
        let (dir, base) = (place.dir.fd.as_fd(), &place.base[..]);
        let stat = match rustix::fs::statat(dir, base, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(fail(error)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let path = place.path();
                tree(self.dirs.root().fd.as_fd(), &path, |_| false).map_err(&fail)?;
                self.dirs.forget();
                self.unlist(&path);
                rustix::fs::unlinkat(dir, base, AtFlags::REMOVEDIR).map_err(fail)?;
                Ok(false)
            }
            kind => {
                rustix::fs::unlinkat(dir, base, AtFlags::empty()).map_err(fail)?;
                if kind == FileType::Symlink {
                    self.dirs.forget();
                }
                Ok(self.options.form == Form::Overlay && kind == FileType::CharacterDevice && stat.st_rdev == 0)
            }
        }
    }

    /// Removes everything in the directory `path` that this layer has not made.
    pub(super) fn clear(&mut self, entry: &Entry, path: &[u8]) -> Result<(), Error> {
        self.dirs.forget();
        tree(self.dirs.root().fd.as_fd(), path, |path| self.made.contains(path))
            .map_err(failed(entry, "removing what it hides"))
    }

    /// Forgets the times of `path` and of everything in it, and that they were made.
    fn unlist(&mut self, path: &[u8]) {
        let inside = [path, b"/"].concat();
        let after = [path, b"0"].concat(); // the byte after the slash
        let gone: Vec<_> = self.times.range(inside.clone()..after).map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.times.remove(&path);
        }
        self.times.remove(path);
        if self.made.remove(path) {
            self.made.retain(|made| !made.starts_with(&inside));
        }
    }
}

enum Step {
    Empty(Vec<u8>),
    Remove(Vec<u8>),
}

/// Removes everything in the directory `path` beneath `root` except what `keep` says to keep.
fn tree(root: BorrowedFd<'_>, path: &[u8], keep: impl Fn(&[u8]) -> bool) -> Result<(), Errno> {
    let mut todo = vec![Step::Empty(path.to_vec())];
    while let Some(step) = todo.pop() {
        match step {
            Step::Empty(path) => empty(root, &path, &keep, &mut todo)?,
            Step::Remove(path) => {
                let slash = path.iter().rposition(|&byte| byte == b'/');
                let parent = dirs::open(root, &path[..slash.unwrap_or(0)])?;
                rustix::fs::unlinkat(parent, &path[slash.map_or(0, |slash| slash + 1)..], AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(())
}

/// Removes the files in one directory and puts its directories on the list.
fn empty(root: BorrowedFd<'_>, path: &[u8], keep: &impl Fn(&[u8]) -> bool, todo: &mut Vec<Step>) -> Result<(), Errno> {
    let dir = dirs::open(root, path)?;
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let child = dirs::join(path, name);
        let kept = keep(&child);
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            kind = FileType::from_raw_mode(rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        }
        match (kind, kept) {
            (FileType::Directory, true) => todo.push(Step::Empty(child)),
            (FileType::Directory, false) => todo.extend([Step::Remove(child.clone()), Step::Empty(child)]),
            (_, true) => {}
            (_, false) => rustix::fs::unlinkat(&dir, name, AtFlags::empty())?,
        }
    }
    Ok(())
}
