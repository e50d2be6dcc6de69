//! Decompression: told from the first bytes, because media types lie, and bounded, because layers do too.

use std::{
    io::{self, BufRead, BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use flate2::bufread::GzDecoder;

use super::READ;
use crate::Error;

/// Log2 of the largest zstd window: 128 MiB of memory, the most that `zstd` itself accepts without being told.
const WINDOW_LOG: u32 = 27;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, one member or several; zeros may follow the last.
    Gzip,
    /// zstd, one frame or several, skippable frames included.
    Zstd,
}

impl Compression {
    /// The compression of a stream that starts with `bytes`.
    pub fn detect(bytes: &[u8]) -> Result<Self, Error> {
        match bytes {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // A frame, or one of the sixteen skippable frames that other data hides in.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Err(Error::Compression("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(Error::Compression("xz")),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err(Error::Compression("lz4")),
            _ => Ok(Self::None),
        }
    }
}

/// How much a stream may grow when it is decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// Bytes out for each byte in.
    pub maximum: u64,
    /// Bytes out that are always allowed.
    pub floor: u64,
}

impl Default for Ratio {
    /// Four times what gzip can do at its best, after the first gibibyte: zeros compress well in honest layers too.
    fn default() -> Self {
        Self { maximum: 4096, floor: 1 << 30 }
    }
}

/// What an I/O error of a [`Decompressor`] holds if the fault is the stream's and not the source's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damaged {
    #[error("the stream is damaged")]
    Stream(#[source] io::Error),
    #[error("the stream decompresses to more than {0} times its size")]
    Ratio(u64),
}

/// Reads a stream decompressed.
pub(super) struct Decompressor<'s> {
    decoder: Box<dyn Read + Send + 's>,
    compression: Compression,
    count: Count,
    produced: u64,
    ratio: Ratio,
}

/// What was read from a source, shared with whoever decodes it.
#[derive(Clone, Default)]
pub(super) struct Count(Arc<(AtomicU64, AtomicBool)>);

impl Count {
    /// Bytes read.
    pub(super) fn bytes(&self) -> u64 {
        self.0.0.load(Ordering::Acquire)
    }

    fn has_failed(&self) -> bool {
        self.0.1.load(Ordering::Acquire)
    }
}

impl<'s> Decompressor<'s> {
    pub(super) fn new(source: impl Read + Send + 's, ratio: Ratio) -> Result<Self, Error> {
        let count = Count::default();
        let mut source = Counted { source, count: count.clone() };
        let failed = |source| super::read_failed(source, 0);
        let mut start = Vec::new();
        #[expect(clippy::disallowed_methods, reason = "limited to the longest magic number")]
        source.by_ref().take(6).read_to_end(&mut start).map_err(failed)?;
        let compression = Compression::detect(&start)?;
        let source = BufReader::with_capacity(READ, Cursor::new(start).chain(source));
        let decoder: Box<dyn Read + Send + 's> = match compression {
            Compression::None => Box::new(source),
            Compression::Gzip => Box::new(Gzip(Some(GzDecoder::new(source)))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(failed)?;
                decoder.window_log_max(WINDOW_LOG).map_err(failed)?;
                Box::new(decoder)
            }
        };
        Ok(Self { decoder, compression, count, produced: 0, ratio })
    }

    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    pub(super) fn count(&self) -> Count {
        self.count.clone()
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match self.decoder.read(buffer) {
            Ok(length) => length,
            Err(error) if self.count.has_failed() || error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, Damaged::Stream(error))),
        };
        self.produced += length as u64;
        let allowed = self.count.bytes().saturating_mul(self.ratio.maximum).max(self.ratio.floor);
        if self.produced > allowed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Damaged::Ratio(self.ratio.maximum)));
        }
        Ok(length)
    }
}

/// A source whose bytes are counted and whose failures are remembered.
struct Counted<R> {
    source: R,
    count: Count,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer);
        match &read {
            Ok(length) => {
                self.count.0.0.fetch_add(*length as u64, Ordering::AcqRel);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.count.0.1.store(true, Ordering::Release),
        }
        read
    }
}

/// Reads all members of a gzip file. Zeros after the last are padding; anything else is damage, because nobody can say
/// whether it was meant to be another member.
struct Gzip<R: BufRead>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(decoder) = &mut self.0 else { return Ok(0) };
            let length = decoder.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
            let Some(mut source) = self.0.take().map(GzDecoder::into_inner) else { return Ok(0) };
            match source.fill_buf()?.first() {
                None => return Ok(0),
                Some(0) => return only_zeros(source).map(|()| 0),
                Some(_) => self.0 = Some(GzDecoder::new(source)),
            }
        }
    }
}

fn only_zeros(mut source: impl BufRead) -> io::Result<()> {
    loop {
        let piece = source.fill_buf()?;
        if piece.is_empty() {
            return Ok(());
        }
        if piece.iter().any(|&byte| byte != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "data that is not gzip follows gzip data"));
        }
        let length = piece.len();
        source.consume(length);
    }
}
