//! The daemon's ends of streams: FIFOs, files, or nothing.

use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use rustix::fs::OFlags;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::{sender, uri::Uri};
use crate::error::{Error, Result};

/// Where output goes.
pub(crate) enum Target {
    /// A pipe, and its reading end, which we keep so that writing never fails for want of a reader.
    Pipe(Sender, Option<File>),
    /// A file, at its end.
    File(File),
    /// Nowhere.
    Nothing,
}

impl Target {
    /// Opens what a path or a URI names.
    pub(crate) fn open(name: &str) -> Result<Self> {
        if name.is_empty() {
            return Ok(Self::Nothing);
        }
        let failed = |error| Error::system(format!("opening {name:?} for output"), error);
        if let Some(uri) = Uri::parse(name).map_err(Error::Invalid)?
            && uri.scheme == "file"
        {
            let path = Path::new(&uri.path);
            fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
            let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
            return file.map(Self::File).map_err(failed);
        }
        let path = super::uri::fifo(name);
        if !fs::metadata(path).map_err(failed)?.file_type().is_fifo() {
            return OpenOptions::new().append(true).open(path).map(Self::File).map_err(failed);
        }
        // The reader first: without one, the writer could not be opened.
        let reader = nonblocking().read(true).open(path).map_err(failed)?;
        let writer = nonblocking().write(true).open(path).map_err(failed)?;
        let sender = Sender::from_file(writer).map_err(failed)?;
        Ok(Self::Pipe(sender, Some(reader)))
    }

    /// Our end of a pipe.
    pub(crate) fn pipe(pipe: OwnedFd) -> Result<Self> {
        Ok(Self::Pipe(sender(pipe)?, None))
    }
}

/// Where input comes from.
pub(crate) struct Input {
    pub(crate) fifo: Receiver,
    pub(crate) held: OwnedFd,
}

impl Input {
    /// Opens a FIFO.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let failed = |error| Error::system(format!("opening {name:?} for input"), error);
        let path = super::uri::fifo(name);
        let reader = nonblocking().read(true).open(path).map_err(failed)?;
        let fifo = Receiver::from_file(reader).map_err(failed)?;
        let held = nonblocking().write(true).open(path).map_err(failed)?;
        Ok(Self { fifo, held: held.into() })
    }
}

fn nonblocking() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options
}
