//! Mounts whose owners are shown through a user namespace: options `uidmap=` and `gidmap=`, as containerd's snapshotters
//! spell them. A bind is mapped itself; of an overlay, which cannot be, the layers are, each for itself.
#![expect(unsafe_code, reason = "mount_setattr(2) is in no safe wrapper")]

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{
    Error, Options, Result,
    options::Bind,
    overlay::lower_dirs,
    userns::{IdRange, UserNamespace, With},
};

/// How the owners of a mount are mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) uids: Vec<IdRange>,
    pub(crate) gids: Vec<IdRange>,
}

impl Mapping {
    /// A namespace with the mapping; users alone, or groups alone, are an error.
    fn namespace(&self) -> Result<File> {
        let missing = |option: &str| Error::Option { option: option.into(), why: "missing beside the other mapping" };
        if self.uids.is_empty() {
            return Err(missing("uidmap"));
        }
        if self.gids.is_empty() {
            return Err(missing("gidmap"));
        }
        let made = UserNamespace::new(&self.uids, &self.gids, With::Nothing)?;
        File::open(made.user()).map_err(|error| Error::io("opening a user namespace", error))
    }
}

/// Binds `source` at `target` with its owners mapped. Flags are the caller's to set.
pub(crate) fn bind(source: &str, target: &Path, options: &Options, mapping: &Mapping) -> Result<()> {
    let namespace = mapping.namespace()?;
    let recursive = options.bind == Some(Bind::Tree);
    let failed = |error: io::Error| Error::Mount {
        kind: "bind".into(),
        from: source.into(),
        target: target.to_owned(),
        source: error,
    };
    let tree = mapped(source, recursive, &namespace).map_err(failed)?;
    attach(&tree, target).map_err(failed)
}

/// Mounts an overlay of mapped layers at `target`. The mapped layers are seen by nobody and gone when this returns: they
/// are put together in a mount namespace that a thread has for itself, and only the overlay leaves it.
pub(crate) fn overlay(data: &[String], options: &Options, target: &Path, mapping: &Mapping) -> Result<()> {
    let namespace = mapping.namespace()?;
    let failed = |error: io::Error| Error::Mount {
        kind: "overlay".into(),
        from: "overlay".into(),
        target: target.to_owned(),
        source: error,
    };
    let (data, flags) = (data.to_vec(), options.flags);
    let thread = std::thread::Builder::new().name("idmap".to_owned());
    let made = thread.spawn(move || assembled(&data, flags, &namespace)).map_err(failed)?.join();
    let tree = made.unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked"))).map_err(failed)?;
    attach(&tree, target).map_err(failed)
}

/// Runs on a thread of its own, which ends afterwards.
fn assembled(data: &[String], flags: rustix::mount::MountFlags, namespace: &File) -> io::Result<OwnedFd> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let mut words = Vec::with_capacity(data.len());
    let mut trees = Vec::new();
    for word in data {
        match word.strip_prefix("lowerdir=") {
            Some(dirs) => {
                let dirs = lower_dirs(dirs);
                words
                    .push(format!("lowerdir={}", (0..dirs.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(":")));
                for dir in dirs {
                    trees.push(mapped(&dir, false, namespace)?);
                }
            }
            None => words.push(word.clone()),
        }
    }
    // A directory that is everywhere and holds no snapshot: what the scratch file system hides, only this thread misses.
    let place = "/proc";
    let scratch = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", place, "tmpfs", scratch, Some(c"mode=700"))?;
    rustix::process::chdir(place)?;
    for (n, tree) in trees.iter().enumerate() {
        let dir = n.to_string();
        fs::create_dir(&dir)?;
        move_mount(tree.as_fd(), "", CWD, dir.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    fs::create_dir("merged")?;
    let words = words.join(",");
    if words.len() >= crate::overlay::PAGE {
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, "overlay options are longer than a page"));
    }
    let words = std::ffi::CString::new(words)?;
    mount("overlay", "merged", "overlay", flags, Some(words.as_c_str()))?;
    Ok(open_tree(CWD, "merged", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(tree.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// A copy of the mount at `source`, attached nowhere, with owners mapped.
fn mapped(source: &str, recursive: bool, namespace: &File) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, source, flags)?;
    set_mapping(&tree, namespace, recursive)?;
    Ok(tree)
}

fn set_mapping(tree: &OwnedFd, namespace: &File, recursive: bool) -> io::Result<()> {
    // struct mount_attr of Linux 5.12: attr_set, attr_clr, propagation, userns_fd.
    const IDMAP: u64 = 0x0010_0000;
    let attributes = [IDMAP, 0, 0, u64::from(namespace.as_raw_fd().unsigned_abs())];
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptors are open, the empty path and the attributes live through the call, which only reads them,
    // and the size is that of the attributes.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
