//! Overlay mounts whose options don't fit into the one page that mount(2) reads.
//!
//! Linux 6.7 and later take the layers one by one over the new mount API. Before, the layers are named through open
//! descriptors of their common directory, which is short and needs no change of the working directory.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use kevel_model::Mount;
use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
    },
};

use crate::{
    Options,
    perform::{fd_path, open_place},
};

/// What mount(2) reads of its data, in bytes; the smallest page of any architecture.
pub(crate) const PAGE: usize = 4096;

/// The longest value that fsconfig(2) takes as a string, with its zero byte.
const VALUE: usize = 256;

pub(crate) fn mount_long(one: &Mount, options: &Options, target: &Path) -> io::Result<()> {
    match by_layers(one, options, target) {
        // No fsopen(2), or an overlayfs without "lowerdir+".
        Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => by_descriptors(one, options, target),
        other => Ok(other?),
    }
}

/// The directories of the option `lowerdir=`, top first. A backslash keeps the colon after it in the path.
pub(crate) fn lower_dirs(value: &str) -> Vec<String> {
    let mut dirs = vec![String::new()];
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, dirs.last_mut()) {
            (':', _) => dirs.push(String::new()),
            ('\\', Some(last)) => last.extend(chars.next()),
            (other, Some(last)) => last.push(other),
            (_, None) => {}
        }
    }
    dirs.retain(|dir| !dir.is_empty());
    dirs
}

fn by_layers(one: &Mount, options: &Options, target: &Path) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !one.source.is_empty() {
        fsconfig_set_string(context.as_fd(), "source", one.source.as_str())?;
    }
    let mut kept = vec![]; // descriptors stay open until the mount exists
    for option in &options.data {
        match option.split_once('=') {
            Some(("lowerdir", value)) => {
                for dir in lower_dirs(value) {
                    set_directory(&context, "lowerdir+", &dir, &mut kept)?;
                }
            }
            Some((key @ ("upperdir" | "workdir"), value)) => set_directory(&context, key, value, &mut kept)?,
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value)?,
            None => fsconfig_set_flag(context.as_fd(), option.as_str())?,
        }
    }
    if options.flags.contains(MountFlags::RDONLY) {
        fsconfig_set_flag(context.as_fd(), "ro")?;
    }
    fsconfig_create(context.as_fd())?;
    let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes(options.flags))?;
    move_mount(mounted.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn set_directory(context: &OwnedFd, key: &str, dir: &str, kept: &mut Vec<OwnedFd>) -> rustix::io::Result<()> {
    if dir.len() < VALUE {
        return fsconfig_set_string(context.as_fd(), key, dir);
    }
    let place = rustix::fs::open(
        dir,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )?;
    fsconfig_set_fd(context.as_fd(), key, place.as_fd())?;
    kept.push(place);
    Ok(())
}

fn attributes(flags: MountFlags) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::empty();
    for (flag, attribute) in [
        (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
        (MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
        (MountFlags::STRICTATIME, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
    ] {
        if flags.contains(flag) {
            attributes |= attribute;
        }
    }
    attributes
}

fn by_descriptors(one: &Mount, options: &Options, target: &Path) -> io::Result<()> {
    let mut kept = vec![];
    let mut data = vec![];
    for option in &options.data {
        match option.strip_prefix("lowerdir=") {
            Some(value) => data.push(format!("lowerdir={}", shortened(&lower_dirs(value), &mut kept)?)),
            None => data.push(option.clone()),
        }
    }
    let data = data.join(",");
    if data.len() >= PAGE {
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, "overlay options are longer than a page"));
    }
    let data = std::ffi::CString::new(data)?;
    Ok(mount(one.source.as_str(), target, "overlay", options.flags, Some(data.as_c_str()))?)
}

/// The directories joined by colons, each relative to a descriptor of the directory that all have in common.
fn shortened(dirs: &[String], kept: &mut Vec<OwnedFd>) -> io::Result<String> {
    let common = common_directory(dirs);
    let place = open_place(common)?;
    let through = fd_path(&place);
    kept.push(place);
    let short: Vec<_> = dirs
        .iter()
        .map(|dir| {
            let rest = dir[common.len()..].trim_start_matches('/');
            through.join(rest).to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
        })
        .collect();
    Ok(short.join(":"))
}

/// The deepest directory that contains all of `dirs` (or is one of them), `/` at least.
fn common_directory(dirs: &[String]) -> &str {
    let Some((first, rest)) = dirs.split_first() else { return "/" };
    let mut end = first.len();
    for dir in rest {
        end = first.bytes().zip(dir.bytes()).take(end).take_while(|(a, b)| a == b).count();
    }
    match first.as_bytes()[..end].iter().rposition(|b| *b == b'/') {
        Some(slash) if slash > 0 => &first[..slash],
        _ => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(dirs: &[&str]) -> Vec<String> {
        dirs.iter().map(|dir| (*dir).to_owned()).collect()
    }

    #[test]
    fn lower_dirs_keep_escaped_colons() {
        assert_eq!(lower_dirs("/a:/b\\:c:/d"), strings(&["/a", "/b:c", "/d"]));
        assert_eq!(lower_dirs(""), Vec::<String>::new());
    }

    #[test]
    fn common_directories() {
        let check = |dirs: &[&str], want: &str| assert_eq!(common_directory(&strings(dirs)), want, "{dirs:?}");
        check(&["/s/10/fs", "/s/11/fs"], "/s");
        check(&["/s/10/fs", "/s/10/fsx"], "/s/10");
        check(&["/a", "/b"], "/");
        check(&["/s/1"], "/s");
        check(&[], "/");
    }

    /// Both ways must give the same tree, so the older one is tried on every kernel.
    #[test]
    fn both_ways_mount_a_hundred_layers() {
        if !rustix::process::getuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<_> = (0..100).map(|n| format!("{}/{:060}/{n}/fs", dir.path().display(), 0)).collect();
        for (n, layer) in layers.iter().enumerate() {
            std::fs::create_dir_all(layer).unwrap();
            std::fs::write(format!("{layer}/{n}"), b"x").unwrap();
        }
        let target = dir.path().join("target");
        std::fs::create_dir(&target).unwrap();
        let one = Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            options: vec![format!("lowerdir={}", layers.join(":"))],
            ..Mount::default()
        };
        let options = Options::parse(&one.options).unwrap();
        let check = |how: &str| {
            let count = std::fs::read_dir(&target).unwrap().count();
            crate::unmount(&target, crate::UnmountFlags::empty()).unwrap();
            assert_eq!(count, 100, "{how}");
        };
        by_descriptors(&one, &options, &target).unwrap();
        check("by descriptors");
        mount_long(&one, &options, &target).unwrap();
        check("as the kernel can");
        match by_layers(&one, &options, &target) {
            Ok(()) => check("by layers"),
            Err(error) => eprintln!("skipped: this kernel takes no single layers: {error}"),
        }
    }
}
