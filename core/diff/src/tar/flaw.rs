//! Why an archive can't be read, as types.

use std::io;

/// Why reading an archive stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes could not be had.
    #[error("reading the archive at byte {offset}")]
    Read {
        /// How far the archive had been read.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bytes are not an archive.
    #[error("archive is malformed at byte {offset}")]
    Malformed {
        /// Where the header or record starts that makes no sense.
        offset: u64,
        /// What is wrong with it.
        #[source]
        flaw: Flaw,
    },
    /// The archive asks for more than the reader is willing to give.
    #[error("archive exceeds the limit of {maximum} {limit} at byte {offset}")]
    Limit {
        /// Where.
        offset: u64,
        /// Which limit.
        limit: Limit,
        /// Its value.
        maximum: u64,
    },
}

/// What an archive may have too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Entries.
    Entries,
    /// Bytes of one extended header.
    ExtendedHeader,
    /// Bytes of one path or link target.
    Path,
    /// Bytes of content, holes included, over all entries.
    Content,
    /// Bytes of the archive itself.
    Archive,
    /// Segments of one sparse file.
    Segments,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Entries => "entries",
            Self::ExtendedHeader => "bytes in one extended header",
            Self::Path => "bytes in one path",
            Self::Content => "bytes of content",
            Self::Archive => "bytes of archive",
            Self::Segments => "segments in one sparse file",
        })
    }
}

/// What is wrong with the bytes of an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It ends inside a header or inside the data of an entry.
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// The sum over a header is not the one it states.
    #[error("the header's checksum is wrong")]
    Checksum,
    /// A number field is not a number, or not one that fits.
    #[error("the field {0} is not a number in range")]
    Number(&'static str),
    /// A record of an extended header does not have the form `length key=value newline`.
    #[error("a PAX record is malformed")]
    Record,
    /// A PAX value that must be text without NUL is not, or a number is not one.
    #[error("the PAX record {0:?} has an impossible value")]
    Value(String),
    /// A type that has no meaning in a layer.
    #[error("entries of type {:?} are not supported", char::from(*.0))]
    Kind(u8),
    /// No name.
    #[error("the entry has no name")]
    NoName,
    /// A link without a target.
    #[error("the link has no target")]
    NoTarget,
    /// Two headers claim to describe the same entry, so that readers disagree which one does.
    #[error("two extended headers describe one entry")]
    Ambiguous,
    /// The map of a sparse file is out of order, out of bounds or does not match its data.
    #[error("the map of a sparse file is impossible")]
    Sparse,
}
