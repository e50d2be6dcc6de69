//! What a peer can do wrong in the framing. After a fault nothing more can be read from it: the header compression of
//! both sides may differ.

use thiserror::Error;

/// Why a SPDY connection cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// Only version 3 is spoken.
    #[error("control frame of SPDY version {0}")]
    Version(u16),
    /// A control frame is longer than any that is needed.
    #[error("control frame of {0} bytes")]
    TooLong(usize),
    /// A frame's length does not fit its type.
    #[error("{frame} frame of {length} bytes")]
    Length {
        /// The frame.
        frame: &'static str,
        /// Its payload.
        length: usize,
    },
    /// A frame about no stream.
    #[error("{0} frame for stream 0")]
    ZeroStream(&'static str),
    /// zlib does not understand a header block.
    #[error("header block does not decompress")]
    Compression,
    /// A header block is larger than any that is needed.
    #[error("header block of more than {0} bytes")]
    HeadersTooLong(usize),
    /// A header block does not hold what it says.
    #[error("header block ends early, or late")]
    HeaderBlock,
}
