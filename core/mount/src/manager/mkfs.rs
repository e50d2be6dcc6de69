//! `mkfs`: the source is an image with a file system, made when it does not exist.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use kevel_model::Mount;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, openat, renameat_with, statat, unlinkat},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::place;
use crate::{Error, Result};

const PREFIX: &str = "X-containerd.mkfs.";
/// How long making a file system may take; its size is hardly a matter, as the image is sparse.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most of a program's complaints that is read.
const COMPLAINTS: u64 = 4096;

/// An image to be.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    kind: Kind,
    size: u64,
    uuid: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ext2,
    Ext3,
    Ext4,
    Xfs,
}

/// Makes the image that the source names, and takes the options about it away.
pub(super) fn transform(mount: &mut Mount, roots: &[PathBuf], tag: &str) -> Result<()> {
    let wanted = parse(&mount.options)?;
    let (parent, name) = place::below(roots, "source", &mount.source)?;
    let doing = |error: Errno| Error::io(format!("making image {:?}", mount.source), error);
    match statat(&parent, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(about) if FileType::from_raw_mode(about.st_mode) == FileType::RegularFile => {}
        Ok(_) => return Err(Error::refused("source", format!("{:?} is there and is no file", mount.source))),
        Err(Errno::NOENT) => make(&wanted, &parent, &name, tag, &mount.source)?,
        Err(error) => return Err(doing(error)),
    }
    mount.options.retain(|option| !option.starts_with(PREFIX));
    Ok(())
}

fn parse(options: &[String]) -> Result<Wanted> {
    let (mut kind, mut size, mut uuid) = (Kind::Ext4, None, None);
    for option in options {
        let Some(option) = option.strip_prefix(PREFIX) else { continue };
        let refused = |why: &str| Error::refused("options", format!("{PREFIX}{option}: {why}"));
        match option.split_once('=') {
            Some(("size", text)) => size = Some(bytes(text).ok_or_else(|| refused("is no size such as 100MiB"))?),
            Some(("fs", "ext2")) => kind = Kind::Ext2,
            Some(("fs", "ext3")) => kind = Kind::Ext3,
            Some(("fs", "ext4")) => kind = Kind::Ext4,
            Some(("fs", "xfs")) => kind = Kind::Xfs,
            Some(("fs", _)) => return Err(refused("is not ext2, ext3, ext4 or xfs")),
            Some(("uuid", text)) if is_uuid(text) => uuid = Some(text.to_owned()),
            Some(("uuid", _)) => return Err(refused("is no UUID")),
            _ => return Err(refused("is not size, fs or uuid")),
        }
    }
    let missing = || Error::refused("options", format!("{PREFIX}size is required"));
    Ok(Wanted { kind, size: size.ok_or_else(missing)?, uuid })
}

/// A size with a unit, all of which are powers of two: `1g`, `100MiB`, `4096`.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 0,
        "k" | "ki" => 10,
        "m" | "mi" => 20,
        "g" | "gi" => 30,
        "t" | "ti" => 40,
        "p" | "pi" => 50,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << power).filter(|bytes| (1..=1 << 60).contains(bytes))
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Under another name first: an image that exists is whole.
fn make(wanted: &Wanted, parent: &OwnedFd, name: &str, tag: &str, source: &str) -> Result<()> {
    let doing = |error: io::Error| Error::io(format!("making image {source:?}"), error);
    let zero = |_| Error::refused("source", "has a zero byte".to_owned());
    let (draft, name) = (CString::new(format!(".{tag}.mkfs")).map_err(zero)?, CString::new(name).map_err(zero)?);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let image = openat(parent, &draft, flags, Mode::from_raw_mode(0o640)).map_err(|error| doing(error.into()))?;
    let image = File::from(image);
    let made = image.set_len(wanted.size).map_err(doing).and_then(|()| run(wanted, &image, source)).and_then(|()| {
        match renameat_with(parent, &draft, parent, &name, RenameFlags::NOREPLACE) {
            // Somebody else was faster, with the same.
            Err(Errno::EXIST) => unlinkat(parent, &draft, AtFlags::empty()).map_err(|error| doing(error.into())),
            renamed => renamed.map_err(|error| doing(error.into())),
        }
    });
    if made.is_err() {
        let _ = unlinkat(parent, &draft, AtFlags::empty()); // the error above is the one that matters
    }
    made
}

fn run(wanted: &Wanted, image: &File, source: &str) -> Result<()> {
    let (program, uuid) = match wanted.kind {
        Kind::Ext2 => ("mkfs.ext2", "-U"),
        Kind::Ext3 => ("mkfs.ext3", "-U"),
        Kind::Ext4 => ("mkfs.ext4", "-U"),
        Kind::Xfs => ("mkfs.xfs", "-m"),
    };
    let mut command = Command::new(program);
    command.arg("-q");
    if let Some(value) = &wanted.uuid {
        command.arg(uuid).arg(if wanted.kind == Kind::Xfs { format!("uuid={value}") } else { value.clone() });
    }
    // By our descriptor: whatever is under the path by now, this is the file that was made.
    command.arg(format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let doing = |error: io::Error| Error::io(format!("{program} for {source:?}"), error);
    let mut child = command.spawn().map_err(doing)?;
    if !ends(child.id()).map_err(doing)? {
        child.kill().map_err(doing)?;
        child.wait().map_err(doing)?;
        return Err(doing(io::Error::new(io::ErrorKind::TimedOut, format!("still running after {PATIENCE:?}"))));
    }
    let status = child.wait().map_err(doing)?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr {
        stderr.take(COMPLAINTS).read_to_string(&mut said).map_err(doing)?;
    }
    Err(doing(io::Error::other(format!("{status}: {}", said.trim()))))
}

/// Whether the process ends in time.
fn ends(pid: u32) -> io::Result<bool> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(&process, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, want) in [("4096", 4096), ("1k", 1024), ("100MiB", 100 << 20), ("2 GB", 2 << 30), ("3t", 3 << 40)] {
            assert_eq!(bytes(text), Some(want), "{text}");
        }
        for bad in ["", "0", "x", "1x", "-1", "1.5g", "99999999999999999999", "9999999p", "1kk"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn options_are_read() {
        let wanted = |options: &[&str]| {
            let options: Vec<_> = options.iter().map(|option| format!("{PREFIX}{option}")).collect();
            parse(&options)
        };
        let uuid = "550e8400-e29b-41d4-a716-446655440000";
        let read = wanted(&["size=1m", "fs=xfs", &format!("uuid={uuid}")]).unwrap();
        assert_eq!(read, Wanted { kind: Kind::Xfs, size: 1 << 20, uuid: Some(uuid.to_owned()) });
        assert_eq!(wanted(&["size=1"]).unwrap().kind, Kind::Ext4);
        for bad in [&["fs=ext4"][..], &["size=1", "fs=btrfs"], &["size=1", "uuid=clear"], &["size=1", "x=y"], &["size"]]
        {
            let error = wanted(bad).unwrap_err().to_string();
            assert!(error.starts_with("options: "), "{bad:?}: {error}");
        }
    }
}
