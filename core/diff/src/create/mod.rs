//! Making layers: what one tree has other than another becomes an archive.
//!
//! The same trees give the same bytes: names are sorted, times come from the files, access times are left out. Files
//! are compared by what the inodes say (as containerd does); content is read only where time stamps are too coarse.

mod inode;
mod pack;
mod walk;

use std::{io::Write, os::fd::AsFd, time::SystemTime};

pub use pack::{Packed, pack};

use crate::{Error, tar::Time};

/// How the upper of two trees shows deletions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upper {
    /// By what is missing: the tree is complete, e.g. a mounted snapshot.
    #[default]
    Complete,
    /// As overlayfs keeps its upper directory: it has changes only, with whiteouts for deletions. This takes as long as
    /// there are changes, where a complete tree takes as long as it is large.
    Changes,
}

/// How to make a layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What the upper tree is.
    pub upper: Upper,
    /// The latest time that anything in the layer has, for layers that come out the same tomorrow.
    pub latest: Option<SystemTime>,
}

/// What went into a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries, whiteouts and directories on the way included.
    pub entries: u64,
    /// Bytes of file content.
    pub size: u64,
    /// Sockets, which archives can't hold.
    pub skipped: u64,
}

/// Writes to `sink`, as an uncompressed archive, what `upper` has other than `lower`; all of it if there is no lower.
///
/// Blocks. The trees should not change meanwhile; a file that shrinks while it is read is an error.
pub fn create(
    lower: Option<&dyn AsFd>,
    upper: &dyn AsFd,
    sink: impl Write,
    options: &Options,
) -> Result<Written, Error> {
    walk::Walk::new(lower.map(AsFd::as_fd), upper.as_fd(), sink, options)?.run()
}

fn latest(time: SystemTime) -> Time {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Time { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos() },
        Err(_) => Time::default(), // no layer is older than Unix
    }
}
