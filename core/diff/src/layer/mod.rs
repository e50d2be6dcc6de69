//! Layers as they are stored: decompressed and hashed on the way to the applier, in one pass.
//!
//! A layer of another media type than [`check_media_type`] knows would have to be turned into one of these by a stream
//! processor before it gets here; there is none.

mod decompress;
mod media;
mod pipe;

use std::{
    io::{BufRead, BufReader, Cursor, Read},
    num::NonZero,
    os::fd::AsFd,
    thread,
};

use kevel_model::{Digest, Hasher};

pub use decompress::{Compression, Ratio};
pub use media::check_media_type;

use crate::{Applied, Error, Options, apply};
use decompress::{Damaged, Decompressor};

/// Layers that are smaller than this when decompressed are not worth a thread.
const SMALL: u64 = 1 << 20;
/// Compressed bytes read at once.
const READ: usize = 128 << 10;

/// A layer that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the uncompressed archive, all bytes up to the end of the stream.
    pub diff_id: Digest,
    /// Bytes read, compressed.
    pub size: u64,
    /// How it was compressed.
    pub compression: Compression,
    /// What was done to the root.
    pub applied: Applied,
}

/// Applies the layer in `source` to the directory `root` and reads `source` to its end.
///
/// The compression is told from the first bytes; `media_type` says only that this is a layer at all, and whether it
/// can be read. `source` is read ahead in other threads if the layer is large; when applying fails they stop with the
/// next read that returns. Whether `source` is the blob it should be, only the caller can tell, from a digest made of
/// what was read; until then the root is not to be trusted.
pub fn apply_layer(
    source: impl Read + Send,
    media_type: &str,
    root: impl AsFd,
    options: &Options,
) -> Result<Layer, Error> {
    check_media_type(media_type)?;
    let mut decompressor = Decompressor::new(source, options.ratio)?;
    let compression = decompressor.compression();
    let count = decompressor.count();
    let mut head = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "limited to what counts as small")]
    decompressor.by_ref().take(SMALL).read_to_end(&mut head).map_err(|source| read_failed(source, 0))?;
    let (diff_id, applied) = if (head.len() as u64) < SMALL {
        (Digest::sha256(&head), apply(&head[..], root, options)?)
    } else {
        stream(Cursor::new(head).chain(decompressor), root, options)?
    };
    Ok(Layer { diff_id, size: count.bytes(), compression, applied })
}

/// Decompresses and hashes in other threads while this one applies: in one if there are two processors, because
/// applying is the slowest of the three, in two if there are more.
fn stream(source: impl Read + Send, root: impl AsFd, options: &Options) -> Result<(Digest, Applied), Error> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let no_thread = |source| Error::Io { doing: "starting a thread for a layer".into(), source };
        let (pieces, hash) = if threads > 2 {
            let (pieces, _) = pipe::read(scope, source, None).map_err(no_thread)?;
            pipe::hash(scope, pieces, Hasher::sha256()).map_err(no_thread)?
        } else {
            pipe::read(scope, source, Some(Hasher::sha256())).map_err(no_thread)?
        };
        // `pieces` is dropped by `apply`, whatever happens: that ends the threads.
        let applied = apply(pieces, root, options).map_err(unwrap_read);
        let hash = hash.join();
        let applied = applied?;
        let digest = hash.ok().flatten().map(Hasher::finish);
        let died = || Error::Io { doing: "hashing the layer".into(), source: std::io::Error::other("a thread died") };
        Ok((digest.ok_or_else(died)?, applied))
    })
}

/// Opens `source` for reading it decompressed, whatever it is compressed with.
pub fn decompress<'s>(source: impl Read + Send + 's, ratio: Ratio) -> Result<impl Read + Send + 's, Error> {
    Decompressor::new(source, ratio)
}

/// Digest of the decompressed `source`, read to its end.
pub fn diff_id(source: impl Read + Send, ratio: Ratio) -> Result<Digest, Error> {
    let mut source = BufReader::with_capacity(READ, Decompressor::new(source, ratio)?);
    let mut hasher = Hasher::sha256();
    loop {
        let piece = source.fill_buf().map_err(|source| read_failed(source, 0))?;
        if piece.is_empty() {
            return Ok(hasher.finish());
        }
        let length = piece.len();
        hasher.update(piece);
        source.consume(length);
    }
}

/// Says of a failure to read the archive whether the source or its compression was at fault.
fn unwrap_read(error: Error) -> Error {
    match error {
        Error::Archive(crate::tar::Error::Read { offset, source }) => read_failed(source, offset),
        other => other,
    }
}

fn read_failed(source: std::io::Error, offset: u64) -> Error {
    match source.downcast::<Damaged>() {
        Ok(Damaged::Ratio(ratio)) => Error::Ratio(ratio),
        Ok(Damaged::Stream(source)) => Error::Decompress(source),
        Err(source) => Error::Archive(crate::tar::Error::Read { offset, source }),
    }
}
