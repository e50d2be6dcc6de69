//! Unmounting, so that it can be repeated: what is not mounted is no error.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx},
    io::Errno,
    mount::{UnmountFlags, unmount as sys_unmount},
};

use crate::{Error, Result, mount_table};

/// How many mounts may lie on one place; a guard against a loop, far above what anyone stacks.
const MAX_STACK: usize = 1024;

/// Unmounts the topmost mount at `target`. Nothing mounted there, or nothing there at all, is success. A symbolic link
/// at the end of `target` is not followed.
pub fn unmount(target: &Path, flags: UnmountFlags) -> Result<()> {
    try_unmount(target, flags).map(|_| ())
}

/// Whether there was something to unmount.
fn try_unmount(target: &Path, flags: UnmountFlags) -> Result<bool> {
    loop {
        return match sys_unmount(target, flags | UnmountFlags::NOFOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::INVAL | Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::Unmount { target: target.to_owned(), source: error.into() }),
        };
    }
}

/// Unmounts everything that is stacked at `target`.
pub fn unmount_all(target: &Path, flags: UnmountFlags) -> Result<()> {
    for _ in 0..MAX_STACK {
        if !try_unmount(target, flags)? {
            return Ok(());
        }
    }
    let source = io::Error::other(format!("more than {MAX_STACK} mounts are stacked"));
    Err(Error::Unmount { target: target.to_owned(), source })
}

/// Unmounts everything at and below `dir`, the newest first, after one look at the mount table. Goes on past failures
/// and returns the first.
pub fn unmount_recursive(dir: &Path, flags: UnmountFlags) -> Result<()> {
    let dir = match real_path(dir) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("resolving {dir:?}"), error)),
    };
    let mut first = Ok(());
    for entry in mount_table()?.iter().rev().filter(|entry| entry.mount_point.starts_with(&dir)) {
        let result = unmount(&entry.mount_point, flags);
        if first.is_ok() {
            first = result;
        }
    }
    first
}

/// The path without symbolic links before its last name, so that a dead file system at `path` itself is not asked.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => path.canonicalize(),
    }
}

/// Whether `path` is the root of a mount. `false` when it doesn't exist. Needs Linux 5.8; before, it is asked of the
/// mount table.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Ok(_) | Err(Errno::NOSYS) => {
            let path = real_path(path).map_err(|error| Error::io(format!("resolving {path:?}"), error))?;
            Ok(mount_table()?.iter().any(|entry| entry.mount_point == path))
        }
        Err(error) => Err(Error::io(format!("looking at {path:?}"), error)),
    }
}
