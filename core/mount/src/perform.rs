//! Mounting: one description, or a list of them at a common target.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use kevel_model::Mount;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    mount::{self as sys, MountFlags, UnmountFlags},
};

use crate::{
    Error, Options, Result,
    idmap::{self, Mapping},
    options::Bind,
    overlay::{self, PAGE},
    unmount::unmount,
};

/// Mounts each description at `target` or, where it names its own target, at that path below `target`, which may not
/// lead out of it. When one fails, those before it are unmounted again.
pub fn all(mounts: &[Mount], target: &Path) -> Result<()> {
    let mut done: Vec<PathBuf> = Vec::with_capacity(mounts.len());
    for one in mounts {
        let result = if one.target.is_empty() {
            mount(one, target).map(|()| target.to_owned())
        } else {
            mount_below(one, target)
        };
        match result {
            Ok(place) => done.push(place),
            Err(error) => {
                for place in done.iter().rev() {
                    if let Err(left) = unmount(place, UnmountFlags::DETACH) {
                        tracing::warn!(path = %place.display(), error = %left, "mount is left after a failed list");
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Mounts at the path that the description names, resolved with `root` as the root of every link and `..`.
fn mount_below(one: &Mount, root: &Path) -> Result<PathBuf> {
    let doing = || format!("resolving mount target {:?} in {root:?}", one.target);
    let directory = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())
        .map_err(|error| Error::io(doing(), error))?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = openat2(&directory, &one.target, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .map_err(|error| Error::io(doing(), error))?;
    let path = fd_path(&place);
    let real = std::fs::read_link(&path).map_err(|error| Error::io(doing(), error))?;
    mount(one, &path)?;
    Ok(real)
}

/// A path that names what `fd` is open on.
pub(crate) fn fd_path(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

/// Mounts one description at `target`, which must exist; [`Mount::target`] is not looked at.
pub fn mount(one: &Mount, target: &Path) -> Result<()> {
    let options = Options::parse(&one.options)?;
    let failed = |source: io::Error| Error::Mount {
        kind: one.kind.clone(),
        from: one.source.clone(),
        target: target.to_owned(),
        source,
    };
    if let Some(mapping) = options.mapping.as_ref().filter(|_| !options.remount) {
        mount_mapped(one, &options, target, mapping)?;
    } else {
        first_step(one, &options, target, failed)?;
    }
    if let Err(error) = adjust(&options, target) {
        if !options.remount {
            let _ = unmount(target, UnmountFlags::DETACH); // the error below is the one that matters
        }
        return Err(failed(error));
    }
    Ok(())
}

/// Owners are mapped of binds and of overlays; nothing else comes with a mapping.
fn mount_mapped(one: &Mount, options: &Options, target: &Path, mapping: &Mapping) -> Result<()> {
    match one.kind.as_str() {
        "overlay" => idmap::overlay(&options.data, options, target, mapping),
        kind if kind == "bind" || options.bind.is_some() => idmap::bind(&one.source, target, options, mapping),
        _ => Err(Error::Option { option: "uidmap".into(), why: "is for binds and overlays" }),
    }
}

fn first_step(one: &Mount, options: &Options, target: &Path, failed: impl FnOnce(io::Error) -> Error) -> Result<()> {
    match first_call(one, options, target) {
        Ok(()) => Ok(()),
        Err(FirstError::Option(error)) => Err(error),
        Err(FirstError::Io(source)) => Err(failed(source)),
    }
}

enum FirstError {
    Option(Error),
    Io(io::Error),
}

impl From<io::Error> for FirstError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustix::io::Errno> for FirstError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

fn first_call(one: &Mount, options: &Options, target: &Path) -> std::result::Result<(), FirstError> {
    let data = options.data.join(",");
    if options.remount {
        return Ok(sys::mount_remount(target, options.flags | bind_flag(options), data.as_str())?);
    }
    if one.kind == "bind" || options.bind.is_some() {
        match options.bind {
            Some(Bind::Tree) => sys::mount_bind_recursive(one.source.as_str(), target)?,
            _ => sys::mount_bind(one.source.as_str(), target)?,
        }
        return Ok(());
    }
    // The kernel reads one page and wants a zero byte at its end.
    if data.len() < PAGE {
        let data = std::ffi::CString::new(data).map_err(io::Error::from)?;
        let data = (!data.is_empty()).then_some(data.as_c_str());
        return Ok(sys::mount(one.source.as_str(), target, one.kind.as_str(), options.flags, data)?);
    }
    if one.kind != "overlay" {
        let option = one.options.iter().max_by_key(|option| option.len()).cloned().unwrap_or_default();
        return Err(FirstError::Option(Error::Option { option, why: "options together are longer than a page" }));
    }
    Ok(overlay::mount_long(one, options, target)?)
}

fn bind_flag(options: &Options) -> MountFlags {
    if options.bind.is_some() { MountFlags::BIND } else { MountFlags::empty() }
}

/// What needs a call of its own: flags of a bind, and propagation.
fn adjust(options: &Options, target: &Path) -> io::Result<()> {
    if options.bind.is_some() && !options.remount && !options.flags.is_empty() {
        // A remount replaces all flags of the mount, so those that the source's mount has are asked for again:
        // dropping nosuid is never what "make it read-only" means, and in a user namespace it is refused.
        let kept = flags_of(target)?;
        sys::mount_remount(target, MountFlags::BIND | options.flags | kept, "")?;
    }
    if let Some(propagation) = options.propagation {
        sys::mount_change(target, propagation.0)?;
    }
    Ok(())
}

fn flags_of(target: &Path) -> io::Result<MountFlags> {
    use rustix::fs::StatVfsMountFlags as Have;
    let have = rustix::fs::statvfs(target)?.f_flag;
    let mut flags = MountFlags::empty();
    for (bit, flag) in [
        (Have::RDONLY, MountFlags::RDONLY),
        (Have::NOSUID, MountFlags::NOSUID),
        (Have::NODEV, MountFlags::NODEV),
        (Have::NOEXEC, MountFlags::NOEXEC),
        (Have::NOATIME, MountFlags::NOATIME),
        (Have::NODIRATIME, MountFlags::NODIRATIME),
        (Have::RELATIME, MountFlags::RELATIME),
    ] {
        if have.contains(bit) {
            flags |= flag;
        }
    }
    Ok(flags)
}

/// Opens `path` as a place only.
pub(crate) fn open_place(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())?)
}
