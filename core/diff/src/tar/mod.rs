//! The tar format as container layers use it: ustar, PAX and GNU, read from a stream and written to one.
//!
//! Bytes in, entries out, and back. Nothing here opens a file or knows what a whiteout is. Where readers disagree about
//! what an archive means, this one either does what Go's `archive/tar` does, because images are made and tested with
//! it, or refuses the archive.

mod flaw;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use flaw::{Error, Flaw, Limit};
pub use reader::{Limits, Reader};
pub use sparse::Segment;
pub use writer::Writer;

/// The unit of the format: headers are one block, data is padded to whole blocks.
pub const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name for a file that came earlier.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A point in time, since 1970 and possibly before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds above that, below 1,000,000,000.
    pub nanos: u32,
}

/// One member of an archive, with everything that its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as it was written: bytes without NUL, not cleaned, not UTF-8 by promise.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// Permission bits with set-user-id, set-group-id and sticky; nothing above `0o7777`.
    pub mode: u32,
    /// The owner; never the value -1, which system calls read as "leave it".
    pub uid: u32,
    /// The group; never -1.
    pub gid: u32,
    /// When the content changed last.
    pub mtime: Time,
    /// When it was read last, if the archive says so.
    pub atime: Option<Time>,
    /// Bytes of the file's content, holes included; zero for everything else.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes in the order of the archive.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data that follows belongs in a sparse file; `None` when it is the whole content.
    pub sparse: Option<Vec<Segment>>,
}

impl Entry {
    /// An entry of `kind` with nothing but a name.
    pub fn new(kind: Kind, name: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            atime: None,
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}
