//! What an inode is and whether two of them are the same file.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::{
    apply::proc_path,
    tar::{Entry, Kind, Time},
    xattr,
};

/// Attributes that belong to the host and not to the image.
const HOST_XATTRS: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];

/// A name in an open directory and what it leads to.
pub(super) struct Inode<'d> {
    dir: &'d OwnedFd,
    name: &'d [u8],
    pub(super) stat: Stat,
}

impl<'d> Inode<'d> {
    /// What `name` in `dir` is; `None` if there is no such name.
    pub(super) fn find(dir: &'d OwnedFd, name: &'d [u8]) -> Result<Option<Self>, Errno> {
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Self { dir, name, stat })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The kind of entry; `None` for sockets.
    pub(super) fn kind(&self) -> Option<Kind> {
        Some(match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            _ => return None,
        })
    }

    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    pub(super) fn is_whiteout(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::CharacterDevice && self.stat.st_rdev == 0
    }

    /// Whether overlayfs shows something else here than the file: another directory, or another file's content.
    pub(super) fn is_redirected(&self) -> Result<bool, Errno> {
        let path = proc_path(self.dir, self.name);
        for name in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
            match rustix::fs::lgetxattr(&path[..], name, &mut [0; 0][..]) {
                Ok(_) | Err(Errno::RANGE) => return Ok(true),
                Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The entry called `path` for this inode.
    pub(super) fn entry(&self, kind: Kind, path: &[u8]) -> Result<Entry, Errno> {
        let mut entry = Entry::new(kind, path);
        entry.mode = self.stat.st_mode & 0o7777;
        (entry.uid, entry.gid) = (self.stat.st_uid, self.stat.st_gid);
        entry.mtime = self.mtime();
        entry.xattrs = self.xattrs()?;
        match kind {
            Kind::File => entry.size = u64::try_from(self.stat.st_size).unwrap_or(0),
            Kind::Symlink => entry.link = self.target()?,
            Kind::CharDevice | Kind::BlockDevice => {
                entry.device = (rustix::fs::major(self.stat.st_rdev), rustix::fs::minor(self.stat.st_rdev));
            }
            _ => {}
        }
        Ok(entry)
    }

    pub(super) fn open(&self) -> Result<File, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(self.dir, self.name, flags, Mode::empty()).map(File::from)
    }

    fn mtime(&self) -> Time {
        Time { seconds: self.stat.st_mtime, nanos: u32::try_from(self.stat.st_mtime_nsec).unwrap_or(0) }
    }

    fn target(&self) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(self.dir, self.name, Vec::new())?.into_bytes())
    }

    fn xattrs(&self) -> Result<xattr::Xattrs, Errno> {
        let mut found = xattr::of_path(&proc_path(self.dir, self.name))?;
        found.retain(|(name, _)| !HOST_XATTRS.contains(&&name[..]));
        Ok(found)
    }

    /// Whether nothing that a layer could say has changed from `old` to `self`. A directory's time is not looked at:
    /// it follows from what is in it.
    pub(super) fn same(&self, old: &Inode<'_>) -> io::Result<bool> {
        let (new, old_stat) = (&self.stat, &old.stat);
        if (new.st_dev, new.st_ino) == (old_stat.st_dev, old_stat.st_ino) {
            return Ok(true);
        }
        let facts = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
        if facts(new) != facts(old_stat) || self.xattrs()? != old.xattrs()? {
            return Ok(false);
        }
        // A time without nanoseconds was cut off by an archive or a file system: it proves nothing.
        let coarse = new.st_mtime_nsec == 0 || old_stat.st_mtime_nsec == 0;
        let same_time = new.st_mtime == old_stat.st_mtime && (coarse || new.st_mtime_nsec == old_stat.st_mtime_nsec);
        match FileType::from_raw_mode(new.st_mode) {
            FileType::Directory => Ok(true),
            _ if !same_time || new.st_size != old_stat.st_size => Ok(false),
            FileType::Symlink => Ok(self.target()? == old.target()?),
            FileType::RegularFile if coarse => self.same_content(old),
            _ => Ok(true),
        }
    }

    fn same_content(&self, old: &Inode<'_>) -> io::Result<bool> {
        let (mut new, mut old) = (self.open()?, old.open()?);
        let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        loop {
            let length = read_full(&mut new, &mut left)?;
            if length != read_full(&mut old, &mut right)? || left[..length] != right[..length] {
                return Ok(false);
            }
            if length == 0 {
                return Ok(true);
            }
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}
