//! Devices and links in `/dev`.

use std::{ffi::CString, path::Path};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};
use rustix::fs::FileType;

use super::{Plan, inside, namespaces::User, path};
use crate::{
    child::{self, Device, Op},
    error::{Error, Result},
};

/// Devices that every container has.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

/// Links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

pub(super) fn steps(plan: &mut Plan, linux: &Linux, user: User) -> Result<()> {
    let mut wanted: Vec<(String, Device)> = Vec::new();
    for (at, spec) in linux.devices().iter().flatten().enumerate() {
        let field = format!("linux.devices[{at}]");
        let device = device(spec, &field, user)?;
        wanted.push((field, device));
    }
    for (name, major, minor) in DEFAULT {
        let (dir, base) = split(Path::new(name), "linux.devices")?;
        // One of the spec's own takes the place.
        if wanted.iter().any(|(_, device)| device.dir == dir && device.name == base) {
            continue;
        }
        let bound = bound(user, Path::new(name), "linux.devices")?;
        let device = Device {
            dir,
            name: base,
            kind: FileType::CharacterDevice,
            mode: 0o666,
            major,
            minor,
            uid: 0,
            gid: 0,
            bound,
        };
        wanted.push(("linux.devices".to_owned(), device));
    }
    for (field, device) in wanted {
        plan.program.push(field, Op::Device(Box::new(device)));
    }
    for (name, target) in LINKS {
        if name == "core" && !Path::new(target).exists() {
            continue;
        }
        link(plan, name, target, false)?;
    }
    link(plan, "ptmx", "pts/ptmx", true)
}

fn link(plan: &mut Plan, name: &str, target: &str, replace: bool) -> Result<()> {
    let c = |part: &str| super::text(part, "linux.devices");
    let op = Op::Symlink { dir: c"/dev".into(), name: c(name)?, target: c(target)?, replace };
    plan.program.push("linux.devices", op);
    Ok(())
}

fn split(at: &Path, field: &str) -> Result<(CString, CString)> {
    let (Some(dir), Some(name)) = (at.parent(), at.file_name()) else {
        return Err(Error::invalid(format!("{field}.path"), "names no file"));
    };
    Ok((path(dir, field)?, path(Path::new(name), field)?))
}

/// In a user namespace no node can be made; the host's own is bound.
fn bound(user: User, at: &Path, field: &str) -> Result<Option<std::os::fd::OwnedFd>> {
    if user == User::Host {
        return Ok(None);
    }
    let tree = child::path::tree(None, &path(at, field)?, false);
    tree.map(Some).map_err(|err| Error::failed(field, format!("open {}", at.display()), err))
}

fn device(spec: &LinuxDevice, field: &str, user: User) -> Result<Device> {
    if !spec.path().is_absolute() {
        return Err(Error::invalid(format!("{field}.path"), "is not absolute"));
    }
    let at = inside(spec.path());
    let (dir, name) = split(&at, field)?;
    let kind = match spec.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(Error::invalid(format!("{field}.type"), "\"a\" is no device")),
    };
    let number = |value: i64, name: &str| {
        let fail = || Error::invalid(format!("{field}.{name}"), format!("{value} is no number of a device"));
        u32::try_from(value).map_err(|_| fail())
    };
    let (major, minor) =
        if kind == FileType::Fifo { (0, 0) } else { (number(spec.major(), "major")?, number(spec.minor(), "minor")?) };
    Ok(Device {
        dir,
        name,
        kind,
        mode: spec.file_mode().unwrap_or(0o666) & 0o7777,
        major,
        minor,
        uid: spec.uid().unwrap_or(0),
        gid: spec.gid().unwrap_or(0),
        bound: bound(user, &at, field)?,
    })
}
