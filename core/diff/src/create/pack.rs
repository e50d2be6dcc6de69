//! Compressing and hashing what is written, in one pass.

use std::io::{self, Write};

use flate2::{GzBuilder, write::GzEncoder};
use kevel_model::{Digest, Hasher};

use crate::{Error, layer::Compression};

/// What was written through [`pack`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed<T> {
    /// Digest of the bytes that reached the sink.
    pub digest: Digest,
    /// Number of those bytes.
    pub size: u64,
    /// Digest of the bytes before compression.
    pub diff_id: Digest,
    /// What the writing function returned.
    pub value: T,
}

/// Compresses what `write` writes into `sink`, and hashes both ends. The same bytes give the same bytes.
pub fn pack<T>(
    compression: Compression,
    sink: impl Write,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<Packed<T>, Error> {
    let failed = |source| Error::Io { doing: "compressing the layer".into(), source };
    let mut encoder = Encoder::new(compression, Hashed::new(sink)).map_err(failed)?;
    let mut plain = Hashed::new(&mut encoder);
    let value = write(&mut plain)?;
    let diff_id = plain.hasher.finish();
    let mut sink = encoder.finish().map_err(failed)?;
    sink.flush().map_err(failed)?;
    Ok(Packed { digest: sink.hasher.finish(), size: sink.size, diff_id, value })
}

enum Encoder<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    fn new(compression: Compression, sink: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(sink),
            // No name and no time in the header.
            Compression::Gzip => Self::Gzip(GzBuilder::new().write(sink, flate2::Compression::default())),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, 0)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::None(sink) => Ok(sink),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(sink) => sink.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(sink) => sink.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

struct Hashed<W> {
    sink: W,
    hasher: Hasher,
    size: u64,
}

impl<W> Hashed<W> {
    fn new(sink: W) -> Self {
        Self { sink, hasher: Hasher::sha256(), size: 0 }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.sink.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
