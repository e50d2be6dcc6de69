//! The terminal and the standard streams.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};

use rustix::{
    fs::{self, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
    pty::OpenptFlags,
};

use super::{
    Child,
    path::{self, Last},
    wire::{self, Fail, What},
};
use crate::sys;

const DEVPTS_MAGIC: u64 = 0x1cd1;

impl Child<'_> {
    /// Makes a terminal in the container's devpts, keeps its lesser end and sends the other one away. Everything goes by
    /// descriptor: no name in the container is trusted twice.
    pub(super) fn console(&mut self, width: u16, height: u16, bind: bool) -> Result<(), Fail> {
        let slash;
        let root = match self.root {
            Some(root) if bind => root,
            _ => {
                slash = fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                slash.as_fd()
            }
        };
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let leader = path::open(root, c"/dev/pts/ptmx", flags)?;
        let is_pts = fs::fstatfs(&leader)?.f_type as u64 == DEVPTS_MAGIC;
        if !is_pts || !path::is_char_device(leader.as_fd(), 5, 2)? {
            return Err(What::NotDevice.into());
        }
        rustix::pty::unlockpt(&leader)?;
        let follower =
            rustix::pty::ioctl_tiocgptpeer(&leader, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        if width != 0 || height != 0 {
            sys::set_window(leader.as_fd(), height, width)?;
        }
        if bind {
            let target = path::open_or_make(root, c"/dev/console", Last::File)?;
            path::attach(path::tree(Some(follower.as_fd()), c"", false)?.as_fd(), target.as_fd())?;
        }
        wire::send_fd(self.socket, wire::CONSOLE, leader.as_fd())?;
        for fd in 0..3 {
            sys::dup2(follower.as_raw_fd(), fd)?;
        }
        rustix::process::ioctl_tiocsctty(sys::stream(0))?;
        Ok(())
    }
}

/// Puts the streams in place, and makes them the user's: he may want to open `/dev/stderr` again.
pub(super) fn stdio(fds: &[Option<RawFd>; 3], owner: Option<u32>) -> Result<(), Fail> {
    for (stream, fd) in fds.iter().enumerate() {
        if let Some(fd) = fd {
            sys::dup2(*fd, stream as RawFd)?;
        }
    }
    let Some(owner) = owner else { return Ok(()) };
    for stream in 0..3 {
        match give(sys::stream(stream), owner) {
            // Not open, of a kind that has no owner, or one that is not ours to give.
            Ok(()) | Err(Errno::BADF | Errno::INVAL | Errno::PERM | Errno::ROFS | Errno::NOSYS) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

fn is_null(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == fs::makedev(1, 3)
}

fn give(stream: BorrowedFd<'_>, owner: u32) -> Result<(), Errno> {
    let stat = fs::fstat(stream)?;
    if stat.st_uid == owner || is_null(&stat) {
        return Ok(());
    }
    fs::fchown(stream, Some(Uid::from_raw(owner)), Some(Gid::from_raw(stat.st_gid)))
}

/// A standard stream that is the host's `/dev/null` would keep a way to the host's file system; the container has its own.
pub(super) fn reopen_null() -> Result<(), Fail> {
    for stream in 0..3 {
        if !fs::fstat(sys::stream(stream)).is_ok_and(|stat| is_null(&stat)) {
            continue;
        }
        let null = match fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(null) => null,
            Err(Errno::NOENT) => continue,
            Err(err) => return Err(err.into()),
        };
        if !path::is_char_device(null.as_fd(), 1, 3)? {
            return Err(What::NotDevice.into());
        }
        sys::dup2(null.as_raw_fd(), stream)?;
    }
    Ok(())
}
