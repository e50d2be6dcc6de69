//! Copies a tree as it is: owners, modes, times, extended attributes, hard links, devices, holes excepted.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, fchown, lchown, symlink},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, ioctl_ficlone, mknodat, utimensat},
    io::Errno,
};

use crate::error::{Error, Result};

/// The largest list of names, or value, of extended attributes that the kernel has.
const MAX_XATTR: usize = 64 << 10;

/// Copies what is in `from`, and its own attributes, into the existing directory `to`.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Copy { links: HashMap::new() };
    let mut open = vec![(from.to_owned(), to.to_owned())];
    let mut closed = vec![];
    while let Some((from, to)) = open.pop() {
        copy.directory(&from, &to, &mut open).map_err(|error| Error::io(format!("copying {from:?}"), error))?;
        closed.push((from, to));
    }
    // Attributes of a directory come last: what is made in it changes its times, and its mode may forbid that.
    for (from, to) in closed.into_iter().rev() {
        let done = fs::symlink_metadata(&from).and_then(|metadata| attributes(&from, &to, &metadata));
        done.map_err(|error| Error::io(format!("copying attributes of {from:?}"), error))?;
    }
    Ok(())
}

struct Copy {
    /// The first copy of every inode that has several names.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    fn directory(&mut self, from: &Path, to: &Path, open: &mut Vec<(PathBuf, PathBuf)>) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                fs::create_dir(&to)?;
                open.push((from, to));
                continue;
            }
            if metadata.nlink() > 1 {
                let inode = (metadata.dev(), metadata.ino());
                if let Some(first) = self.links.get(&inode) {
                    fs::hard_link(first, &to)?;
                    continue;
                }
                self.links.insert(inode, to.clone());
            }
            one(&from, &to, &metadata)?;
            attributes(&from, &to, &metadata)?;
        }
        Ok(())
    }
}

/// Makes one file, link, device, pipe or socket.
fn one(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_file() {
        let source = File::open(from)?;
        let target = File::options().write(true).create_new(true).open(to)?;
        // Shares blocks where the file system can; what comes back otherwise depends on the file system.
        if ioctl_ficlone(&target, &source).is_err() {
            io::copy(&mut &source, &mut &target)?;
        }
        return Ok(());
    }
    let kind = if kind.is_block_device() {
        FileType::BlockDevice
    } else if kind.is_char_device() {
        FileType::CharacterDevice
    } else if kind.is_fifo() {
        FileType::Fifo
    } else {
        FileType::Socket
    };
    Ok(mknodat(CWD, to, kind, Mode::from_raw_mode(0o600), metadata.rdev())?)
}

fn attributes(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        fchown(File::open(to)?, Some(metadata.uid()), Some(metadata.gid()))?;
    } else {
        lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    if !metadata.is_symlink() {
        // After the owner, which clears set-id bits.
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    xattrs(from, to)?;
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Copies extended attributes; those that this file system or process may not set (`security.*` mostly) are left out.
fn xattrs(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0; MAX_XATTR];
    let length = match rustix::fs::llistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    if length == 0 {
        return Ok(());
    }
    let mut value = vec![0; MAX_XATTR];
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let size = match rustix::fs::lgetxattr(from, name, &mut value[..]) {
            Err(Errno::NODATA) => continue,
            other => other?,
        };
        match rustix::fs::lsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP | Errno::PERM) => {
                let name = String::from_utf8_lossy(name);
                tracing::debug!(path = %to.display(), %name, "extended attribute not copied");
            }
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_everything() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("d/e")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("d/file"), b"data").unwrap();
        fs::set_permissions(from.join("d/file"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::hard_link(from.join("d/file"), from.join("link")).unwrap();
        symlink("/nowhere", from.join("d/e/symlink")).unwrap();
        mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        rustix::fs::setxattr(from.join("d"), "user.kevel", b"yes", XattrFlags::empty()).unwrap();
        let old = Timestamps {
            last_access: Timespec { tv_sec: 5, tv_nsec: 0 },
            last_modification: Timespec { tv_sec: 7, tv_nsec: 9 },
        };
        utimensat(CWD, from.join("d"), &old, AtFlags::empty()).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o1777)).unwrap();

        copy_tree(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("link")).unwrap(), b"data");
        let (file, link) = (fs::metadata(to.join("d/file")).unwrap(), fs::metadata(to.join("link")).unwrap());
        assert_eq!((file.ino(), file.mode() & 0o7777), (link.ino(), 0o4711));
        assert_eq!(fs::read_link(to.join("d/e/symlink")).unwrap(), Path::new("/nowhere"));
        assert!(fs::symlink_metadata(to.join("pipe")).unwrap().file_type().is_fifo());
        let directory = fs::metadata(to.join("d")).unwrap();
        assert_eq!((directory.mtime(), directory.mtime_nsec()), (7, 9));
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o1777);
        let mut value = [0; 10];
        let size = rustix::fs::getxattr(to.join("d"), "user.kevel", &mut value[..]).unwrap();
        assert_eq!(&value[..size], b"yes");
    }
}
