//! Making what an entry describes: files, links, devices, directories, and what is known about them.

use std::{
    fs::File,
    io::{BufRead, ErrorKind, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{
    Applier, Form, Place,
    dirs::{self, Dir, Missing},
    failed, flawed,
    name::Name,
    whiteout,
};
use crate::{
    Error,
    error::Flaw,
    tar::{Entry, Kind, Time},
};

impl<R: BufRead> Applier<'_, R> {
    /// Makes `entry` at `place`. What was there goes, except that a directory stays when a directory comes.
    pub(super) fn place(&mut self, entry: &Entry, place: Place) -> Result<(), Error> {
        match entry.kind {
            Kind::File => self.file(entry, &place)?,
            Kind::HardLink => self.hard_link(entry, &place)?,
            Kind::Symlink => self.symlink(entry, &place)?,
            Kind::Directory => self.directory(entry, &place)?,
            Kind::CharDevice => self.special(entry, &place, FileType::CharacterDevice)?,
            Kind::BlockDevice => self.special(entry, &place, FileType::BlockDevice)?,
            Kind::Fifo => self.special(entry, &place, FileType::Fifo)?,
        }
        self.mark(place.path());
        Ok(())
    }

    fn file(&mut self, entry: &Entry, place: &Place) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let fd = self.fresh(entry, place, "making the file", |dir, base| rustix::fs::openat(dir, base, flags, mode))?;
        self.applied.inodes += 1;
        let mut file = File::from(fd);
        let written = match &entry.sparse {
            None => self.copy(|piece| file.write_all(piece)),
            Some(segments) => {
                let mut segments = segments.iter().copied();
                let mut segment = segments.next();
                let written = self.copy(|mut piece| {
                    while let (Some(now), false) = (&mut segment, piece.is_empty()) {
                        let length = usize::try_from(now.length).unwrap_or(usize::MAX).min(piece.len());
                        file.write_all_at(&piece[..length], now.offset)?;
                        (now.offset, now.length) = (now.offset + length as u64, now.length - length as u64);
                        piece = &piece[length..];
                        if now.length == 0 {
                            segment = segments.next();
                        }
                    }
                    Ok(())
                });
                written.and_then(|()| file.set_len(entry.size).map_err(Stop::Write))
            }
        };
        written.map_err(|stop| stop.at(entry))?;
        self.describe(entry, file.as_fd())?;
        rustix::fs::futimens(&file, &times(entry)).map_err(failed(entry, "setting the times"))
    }

    /// Hands the data of the current entry to `write`, piece by piece.
    fn copy(&mut self, mut write: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), Stop> {
        loop {
            let piece = self.reader.data().map_err(Stop::Read)?;
            if piece.is_empty() {
                return Ok(());
            }
            write(piece).map_err(Stop::Write)?;
            let length = piece.len();
            self.reader.advance(length);
            self.applied.size += length as u64;
        }
    }

    /// A second name for a file that is already there. Its owner and mode are the file's, which has them already.
    fn hard_link(&mut self, entry: &Entry, place: &Place) -> Result<(), Error> {
        let name = Name::parse(&entry.link).map_err(|flaw| flawed(entry, flaw))?;
        let base = name.base().ok_or_else(|| flawed(entry, Flaw::Root))?.to_vec();
        let target = Place { dir: self.parent(entry, name.parent(), Missing::Fail)?, base };
        if target.path() == place.path() {
            return Err(flawed(entry, Flaw::SelfLink));
        }
        self.fresh(entry, place, "making the hard link", |dir, base| {
            rustix::fs::linkat(&target.dir.fd, &target.base[..], dir, base, AtFlags::empty())
        })
    }

    fn symlink(&mut self, entry: &Entry, place: &Place) -> Result<(), Error> {
        self.fresh(entry, place, "making the symbolic link", |dir, base| {
            rustix::fs::symlinkat(&entry.link[..], dir, base)
        })?;
        self.applied.inodes += 1;
        self.describe_named(entry, place)
    }

    fn special(&mut self, entry: &Entry, place: &Place, kind: FileType) -> Result<(), Error> {
        let (major, minor) = entry.device;
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(flawed(entry, Flaw::Device));
        }
        let device = rustix::fs::makedev(major, minor);
        self.fresh(entry, place, "making the special file", |dir, base| {
            rustix::fs::mknodat(dir, base, kind, Mode::from_raw_mode(0o600), device)
        })?;
        self.applied.inodes += 1;
        self.describe_named(entry, place)
    }

    fn directory(&mut self, entry: &Entry, place: &Place) -> Result<(), Error> {
        let (parent, base) = (place.dir.fd.as_fd(), &place.base[..]);
        let fail = failed(entry, "making the directory");
        let made = match rustix::fs::mkdirat(parent, base, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => match dirs::open(parent, base) {
                Ok(_) => false,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let hidden = self.displace(entry, place)?;
                    rustix::fs::mkdirat(parent, base, Mode::from_raw_mode(0o700)).map_err(&fail)?;
                    if hidden {
                        // The layer removes what was there and makes it anew, so nothing of the old one may show.
                        dirs::open(parent, base).and_then(|fd| whiteout::set_opaque(fd.as_fd())).map_err(&fail)?;
                    }
                    true
                }
                Err(error) => return Err(fail(error)),
            },
            Err(error) => return Err(fail(error)),
        };
        self.applied.inodes += u64::from(made);
        let dir = Rc::new(Dir { fd: dirs::open(parent, base).map_err(fail)?, path: place.path() });
        self.describe(entry, dir.fd.as_fd())?;
        self.times.insert(dir.path.clone(), times(entry));
        self.dirs.keep(dir);
        Ok(())
    }

    /// Runs `make`, and if something is in the way, removes that and runs it again.
    fn fresh<T>(
        &mut self,
        entry: &Entry,
        place: &Place,
        doing: &'static str,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let made = match make(place.dir.fd.as_fd(), &place.base) {
            Err(Errno::EXIST) => {
                self.displace(entry, place)?;
                make(place.dir.fd.as_fd(), &place.base)
            }
            other => other,
        };
        made.map_err(failed(entry, doing))
    }

    /// Sets owner, mode and attributes of an open file. The order matters: a new owner takes set-user-id and
    /// capabilities away.
    pub(super) fn describe(&mut self, entry: &Entry, fd: BorrowedFd<'_>) -> Result<(), Error> {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(failed(entry, "setting the owner"))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(failed(entry, "setting the mode"))?;
        self.attributes(entry, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))
    }

    /// The same for what can't be opened without consequences: links, devices and pipes.
    fn describe_named(&mut self, entry: &Entry, place: &Place) -> Result<(), Error> {
        let (dir, base) = (&place.dir.fd, &place.base[..]);
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(dir, base, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(entry, "setting the owner"))?;
        if entry.kind != Kind::Symlink {
            let fd = rustix::fs::openat(dir, base, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            fd.and_then(|fd| rustix::fs::chmod(proc_path(&fd, b""), Mode::from_raw_mode(entry.mode)))
                .map_err(failed(entry, "setting the mode"))?;
        }
        let path = proc_path(dir, base);
        self.attributes(entry, |name, value| rustix::fs::lsetxattr(&path[..], name, value, XattrFlags::empty()))?;
        rustix::fs::utimensat(dir, base, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(entry, "setting the times"))
    }

    fn attributes(&mut self, entry: &Entry, set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>) -> Result<(), Error> {
        for (name, value) in &entry.xattrs {
            if steers_overlay(name) {
                self.applied.skipped_xattrs += 1;
                continue;
            }
            match set(name, value) {
                Ok(()) => {}
                Err(Errno::NOTSUP) => self.applied.skipped_xattrs += 1,
                Err(error) => return Err(failed(entry, "setting an extended attribute")(error)),
            }
        }
        Ok(())
    }

    /// Remembers that this layer has `path`, and the directories on the way.
    pub(super) fn mark(&mut self, mut path: Vec<u8>) {
        if self.options.form != Form::Plain {
            return;
        }
        loop {
            let parent = path.iter().rposition(|&byte| byte == b'/').map(|slash| path[..slash].to_vec());
            match (self.made.insert(path), parent) {
                (true, Some(parent)) => path = parent,
                _ => return,
            }
        }
    }
}

/// Why copying data stopped.
enum Stop {
    Read(crate::tar::Error),
    Write(std::io::Error),
}

impl Stop {
    fn at(self, entry: &Entry) -> Error {
        match self {
            Self::Read(error) => Error::Archive(error),
            Self::Write(source) => Error::Place {
                name: entry.name.escape_ascii().to_string(),
                doing: if source.kind() == ErrorKind::StorageFull { "disk is full" } else { "writing the file" },
                source,
            },
        }
    }
}

/// The times of `entry`. Without one of its own, the time of the last access is that of the last change.
pub(super) fn times(entry: &Entry) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    Timestamps { last_access: spec(entry.atime.unwrap_or(entry.mtime)), last_modification: spec(entry.mtime) }
}

/// Whether overlayfs would read an attribute as an order to show other files. No layer has a say in that.
pub(crate) fn steers_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// A path to `name` in the directory `fd`, for system calls that take paths only.
pub(crate) fn proc_path(fd: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// Gives the directory `to` the owner, mode and attributes of `from`.
pub(super) fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let from = dirs::open(from, b".")?;
    let stat = rustix::fs::fstat(&from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    for (name, value) in crate::xattr::of_file(from.as_fd())? {
        match rustix::fs::fsetxattr(to, &name[..], &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
