//! What fuzz targets reach of this crate beside its users.

use std::time::UNIX_EPOCH;

use crate::line::{Cutter, Stream};

/// The log of a stream that comes in pieces of `size` bytes, with lines of at most `limit`.
pub fn cut(bytes: &[u8], size: usize, limit: usize) -> Vec<u8> {
    let (mut cutter, mut out) = (Cutter::new(Stream::Stdout, limit), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        cutter.feed(piece, UNIX_EPOCH, &mut out);
    }
    cutter.finish(UNIX_EPOCH, &mut out);
    out
}
