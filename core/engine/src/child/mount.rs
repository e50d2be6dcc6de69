//! Steps that build the container's file system. Every target is resolved beneath the root and then used by descriptor.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, UnmountFlags},
};

use super::{
    Child, Op,
    path::{self, Last},
    wire::{Fail, What},
};
use crate::sys::{self, MountAttr};

/// A mount of the spec.
pub(crate) struct Mount {
    pub(crate) target: CString,
    pub(crate) source: Source,
    /// What is applied after the mount is there.
    pub(crate) attr: MountAttr,
    pub(crate) recursive: MountAttr,
    pub(crate) propagation: Vec<(u64, bool)>,
    /// The target may be in procfs.
    pub(crate) on_proc: bool,
    /// The target must not be reached by a link.
    pub(crate) exact: bool,
}

/// What is mounted.
pub(crate) enum Source {
    /// A detached tree that the parent has opened, with all its attributes.
    Tree { tree: OwnedFd, dir: bool },
    /// A new file system.
    Fs(FileSystem),
    /// The hierarchies of cgroup v1, each in a directory of a small tmpfs.
    Cgroups { controllers: Vec<Controller>, links: Vec<(CString, CString)> },
    /// Nothing: attributes of a mount that is there already.
    Remount,
}

/// A file system that is made when it is mounted.
pub(crate) struct FileSystem {
    pub(crate) kind: CString,
    pub(crate) options: Vec<(CString, Option<CString>)>,
    pub(crate) flags: u32,
    /// The root of a tmpfs gets the mode of the directory that it lies on.
    pub(crate) inherit_mode: bool,
}

/// A hierarchy of cgroup v1.
pub(crate) struct Controller {
    pub(crate) name: CString,
    pub(crate) source: Source,
}

/// A device node.
pub(crate) struct Device {
    pub(crate) dir: CString,
    pub(crate) name: CString,
    /// Type and permissions.
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bound from the host where nodes can't be made.
    pub(crate) bound: Option<OwnedFd>,
}

const PROC_MAGIC: u64 = 0x9fa0;

impl<'a> Child<'a> {
    pub(super) fn mount_step(&mut self, op: &'a Op) -> Result<(), Fail> {
        match op {
            Op::Propagation(flags) => {
                rustix::mount::mount_change(c"/", MountPropagationFlags::from_bits_retain(*flags))?;
                // Whatever the rest does, what is mounted over "/" stays here, and pivot_root wants it private.
                rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE)?;
            }
            Op::AttachRoot => attach_root(self.root()?)?,
            Op::Mount(mount) => mount_one(self.root()?, mount)?,
            Op::Seal { target, attr } => {
                let target = path::open(self.root()?, target, OFlags::PATH)?;
                sys::mount_setattr(target.as_raw_fd(), attr, false)?;
            }
            Op::Device(device) => make_device(self.root()?, device)?,
            Op::Symlink { dir, name, target, replace } => make_link(self.root()?, dir, name, target, *replace)?,
            Op::MakeDir(dir) => drop(path::open_or_make(self.root()?, dir, Last::Dir)?),
            Op::ReadonlyPath(target) => readonly(self.root()?, target)?,
            Op::MaskedPath { path, label } => mask(self.root()?, path, label.as_deref())?,
            Op::Umount(target) => rustix::mount::unmount(target.as_c_str(), UnmountFlags::DETACH)?,
            Op::Pivot => self.pivot()?,
            Op::Chroot => {
                rustix::process::fchdir(self.root()?)?;
                rustix::process::chroot(c".")?;
                rustix::process::chdir(c"/")?;
            }
            Op::RootAttr(attr) => sys::mount_setattr(self.root()?.as_raw_fd(), attr, false)?,
            Op::RootPropagation(flags) => {
                rustix::mount::mount_change(c"/", MountPropagationFlags::from_bits_retain(*flags))?;
            }
            _ => return Err(Errno::INVAL.into()),
        }
        Ok(())
    }
}

/// The root lies over `/`, not over its own path: so nobody needs to reach that path, and both ways of changing the root
/// find it.
fn attach_root(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let slash = fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    path::attach(root, slash.as_fd())
}

fn mount_one(root: BorrowedFd<'_>, mount: &Mount) -> Result<(), Fail> {
    let (target, existed) = target(root, mount)?;
    let made = match &mount.source {
        Source::Tree { tree, .. } => return Ok(path::attach(tree.as_fd(), target.as_fd())?),
        Source::Remount => target,
        Source::Fs(file_system) => {
            let made = new_mount(file_system, existed.then_some(target.as_fd()))?;
            path::attach(made.as_fd(), target.as_fd())?;
            made
        }
        Source::Cgroups { controllers, links } => {
            let made = cgroups(controllers, links)?;
            path::attach(made.as_fd(), target.as_fd())?;
            for controller in controllers {
                controller_mount(made.as_fd(), controller)?;
            }
            made
        }
    };
    for (attr, recursive) in [(&mount.attr, false), (&mount.recursive, true)] {
        if !attr.is_empty() {
            sys::mount_setattr(made.as_raw_fd(), attr, recursive)?;
        }
    }
    for (propagation, recursive) in &mount.propagation {
        let attr = MountAttr { propagation: *propagation, ..MountAttr::default() };
        sys::mount_setattr(made.as_raw_fd(), &attr, *recursive)?;
    }
    Ok(())
}

/// The target, and whether it was there before.
fn target(root: BorrowedFd<'_>, mount: &Mount) -> Result<(OwnedFd, bool), Fail> {
    let existed = path::open(root, &mount.target, OFlags::PATH).is_ok();
    let last = if matches!(mount.source, Source::Tree { dir: false, .. }) { Last::File } else { Last::Dir };
    let target = if matches!(mount.source, Source::Remount) {
        path::open(root, &mount.target, OFlags::PATH)?
    } else if mount.exact {
        match path::open_or_make_exact(root, &mount.target) {
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(What::NotPlain.into()),
            answer => answer?,
        }
    } else {
        path::open_or_make(root, &mount.target, last)?
    };
    if mount.exact && FileType::from_raw_mode(fs::fstat(&target)?.st_mode) != FileType::Directory {
        return Err(What::NotPlain.into());
    }
    if !mount.on_proc && !matches!(mount.source, Source::Remount) && fs::fstatfs(&target)?.f_type as u64 == PROC_MAGIC {
        return Err(What::OnProc.into());
    }
    Ok((target, existed))
}

/// A new file system; `over` is the directory that it comes to lie on, if that is not a new one.
fn new_mount(file_system: &FileSystem, over: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(file_system.kind.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in &file_system.options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), key.as_c_str(), value.as_c_str())?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), key.as_c_str())?,
        }
    }
    if let Some(over) = over.filter(|_| file_system.inherit_mode) {
        let mut text = [0_u8; 6];
        let mode = fs::fstat(over)?.st_mode & 0o7777;
        for (place, digit) in text[..5].iter_mut().rev().enumerate() {
            *digit = b'0' + ((mode >> (3 * place)) & 7) as u8;
        }
        let text = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::INVAL)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), c"mode", text)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let flags = MountAttrFlags::from_bits_retain(file_system.flags);
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// The tmpfs that holds the hierarchies of cgroup v1.
fn cgroups(controllers: &[Controller], links: &[(CString, CString)]) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"source", c"tmpfs")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"mode", c"755")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let flags =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let made = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    for controller in controllers {
        fs::mkdirat(&made, controller.name.as_c_str(), Mode::from_raw_mode(0o755))?;
    }
    for (name, target) in links {
        fs::symlinkat(target.as_c_str(), &made, name.as_c_str())?;
    }
    Ok(made)
}

fn controller_mount(made: BorrowedFd<'_>, controller: &Controller) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = fs::openat(made, controller.name.as_c_str(), flags, Mode::empty())?;
    match &controller.source {
        Source::Fs(file_system) => path::attach(new_mount(file_system, None)?.as_fd(), target.as_fd()),
        Source::Tree { tree, .. } => path::attach(tree.as_fd(), target.as_fd()),
        Source::Cgroups { .. } | Source::Remount => Err(Errno::INVAL),
    }
}

fn make_device(root: BorrowedFd<'_>, device: &Device) -> Result<(), Fail> {
    let dir = path::open_or_make(root, &device.dir, Last::Dir)?;
    let name = device.name.as_c_str();
    if let Some(bound) = &device.bound {
        match fs::mknodat(&dir, name, FileType::RegularFile, Mode::empty(), 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(err) => return Err(err.into()),
        }
        let target = fs::openat(&dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        return Ok(path::attach(bound.as_fd(), target.as_fd())?);
    }
    let number = fs::makedev(device.major, device.minor);
    match fs::mknodat(&dir, name, device.kind, Mode::from_raw_mode(device.mode), number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let same = FileType::from_raw_mode(stat.st_mode) == device.kind
                && (device.kind == FileType::Fifo || stat.st_rdev == number);
            // It would look like the device and be whatever the image has put there.
            return if same { Ok(()) } else { Err(What::Occupied.into()) };
        }
        Err(err) => return Err(err.into()),
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn make_link(root: BorrowedFd<'_>, dir: &CStr, name: &CStr, target: &CStr, replace: bool) -> Result<(), Fail> {
    let dir = path::open_or_make(root, dir, Last::Dir)?;
    if replace {
        match fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(err) => return Err(err.into()),
        }
    }
    match fs::symlinkat(target, &dir, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Opens a path that need not be there.
fn optional(root: BorrowedFd<'_>, target: &CStr) -> Result<Option<OwnedFd>, Fail> {
    match path::open(root, target, OFlags::PATH) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

fn readonly(root: BorrowedFd<'_>, target: &CStr) -> Result<(), Fail> {
    let Some(target) = optional(root, target)? else { return Ok(()) };
    let tree = path::tree(Some(target.as_fd()), c"", true)?;
    let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    sys::mount_setattr(tree.as_raw_fd(), &attr, false)?;
    Ok(path::attach(tree.as_fd(), target.as_fd())?)
}

/// A directory is hidden by an empty one, anything else by the host's `/dev/null`, for which the image is not asked.
fn mask(root: BorrowedFd<'_>, target: &CStr, label: Option<&CStr>) -> Result<(), Fail> {
    let Some(target) = optional(root, target)? else { return Ok(()) };
    if FileType::from_raw_mode(fs::fstat(&target)?.st_mode) != FileType::Directory {
        let null = path::tree(None, c"/dev/null", false)?;
        if !path::is_char_device(null.as_fd(), 1, 3)? {
            return Err(What::NotDevice.into());
        }
        return Ok(path::attach(null.as_fd(), target.as_fd())?);
    }
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [(c"source", c"tmpfs"), (c"nr_blocks", c"1"), (c"nr_inodes", c"1")] {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?;
    }
    if let Some(label) = label {
        rustix::mount::fsconfig_set_string(context.as_fd(), c"context", label)?;
    }
    rustix::mount::fsconfig_set_flag(context.as_fd(), c"ro")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let empty =
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    Ok(path::attach(empty.as_fd(), target.as_fd())?)
}
