//! Whiteouts: how a layer says that something of the layers below is gone. They never hide what their own layer has.

use std::{
    io::BufRead,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, XattrFlags},
    io::Errno,
};

use super::{Applier, Form, Place, dirs, dirs::Dir, failed};
use crate::{Error, tar::Entry};

/// The attribute of a directory that hides what the layers below have in it.
const OPAQUE: &str = "trusted.overlay.opaque";

impl<R: BufRead> Applier<'_, R> {
    /// Hides everything that the layers below have in `dir`.
    pub(super) fn opaque(&mut self, entry: &Entry, dir: &Dir) -> Result<(), Error> {
        match self.options.form {
            Form::Overlay => set_opaque(dir.fd.as_fd()).map_err(failed(entry, "making the directory opaque")),
            Form::Plain => self.clear(entry, &dir.path),
        }
    }

    /// Hides what the layers below have at `place`.
    pub(super) fn whiteout(&mut self, entry: &Entry, place: &Place) -> Result<(), Error> {
        match self.options.form {
            Form::Overlay => self.cover(entry, place),
            Form::Plain if !self.made.contains(&place.path()) => self.displace(entry, place).map(|_| ()),
            Form::Plain => match dirs::open(place.dir.fd.as_fd(), &place.base) {
                Ok(_) => self.clear(entry, &place.path()),
                Err(_) => Ok(()),
            },
        }
    }

    /// Puts a whiteout at `place`. If the layer has a directory there already, the directory becomes opaque.
    fn cover(&mut self, entry: &Entry, place: &Place) -> Result<(), Error> {
        let (dir, base) = (place.dir.fd.as_fd(), &place.base[..]);
        let made = match rustix::fs::mknodat(dir, base, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                self.applied.inodes += 1;
                Ok(())
            }
            Err(Errno::EXIST) => match dirs::open(dir, base) {
                Ok(fd) => set_opaque(fd.as_fd()),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        made.map_err(failed(entry, "making the whiteout"))
    }
}

/// Whether `name` in `dir` is an overlayfs whiteout.
pub(crate) fn is_one(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0)
}

/// Whether a directory hides what the layers below have in it.
pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut value = [0; 8];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a directory hide what the layers below have in it.
pub(super) fn set_opaque(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
}
