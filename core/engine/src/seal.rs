//! Keeps containers from writing to the program that starts them.
//!
//! Until it execs, a container's process is a copy of this one, and `/proc/self/exe` leads to this program's file: a
//! container that gets it run again inside could write to it as soon as it is no longer busy. So the program runs from a
//! read-only mount of its own file that is attached nowhere: nobody can write through it, and it costs no memory.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::fs::StatVfsMountFlags;

use crate::{
    child::path,
    error::{Error, Result},
    sys::{self, MountAttr, Strings},
};

const EXE: &str = "/proc/self/exe";

/// Whether this program can't be written to through `/proc/self/exe`.
///
/// # Errors
///
/// `/proc` is not there.
pub fn is_sealed() -> Result<bool> {
    let stat = rustix::fs::statvfs(EXE).map_err(|err| Error::system("look at this program's file", err))?;
    Ok(stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Runs this program anew from a read-only mount, unless it does already. To be called first of all, by a process with one
/// thread; descriptors without close-on-exec stay open.
///
/// # Errors
///
/// The mount can't be made.
pub fn seal() -> Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let failed = |err: rustix::io::Errno| Error::system("mount this program's file read-only", err);
    let own = fs::File::open(EXE).map_err(|err| Error::system("open this program's file", err))?;
    let tree: OwnedFd = path::tree(Some(std::os::fd::AsFd::as_fd(&own)), c"", false).map_err(failed)?;
    let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID, ..MountAttr::default() };
    sys::mount_setattr(tree.as_raw_fd(), &attr, false).map_err(failed)?;
    let strings = |path: &str| -> Result<Strings> {
        let text = fs::read(path).map_err(|err| Error::system(format!("read {path}"), err))?;
        let parts = text.split_inclusive(|byte| *byte == 0).filter_map(|part| part.strip_suffix(&[0]));
        Ok(Strings::new(parts.filter_map(|part| CString::new(part).ok()).collect()))
    };
    let (argv, envp) = (strings("/proc/self/cmdline")?, strings("/proc/self/environ")?);
    Err(failed(sys::execveat(tree.as_raw_fd(), argv.pointers(), envp.pointers())))
}
