//! Tar archives as streams: as much of the format as image archives need, read and written in bounded memory.

use kevel_model::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Tar is made of these.
const BLOCK: usize = 512;
/// The longest name that is taken from a PAX or GNU header.
const MAX_NAME: u64 = 64 << 10;

/// An entry's head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Clean path without a leading `./`.
    pub(crate) name: String,
    /// Bytes of content.
    pub(crate) size: u64,
    /// Whether it is a regular file.
    pub(crate) is_file: bool,
    /// Where a link points, empty for others.
    pub(crate) link: String,
}

/// Reads an archive entry by entry.
pub(crate) struct Reader<R> {
    source: R,
    /// Content of the current entry still to come, and the padding behind it.
    left: u64,
    padding: u64,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0 }
    }

    /// The next entry; `None` at the archive's end. What was not read of the one before is skipped.
    pub(crate) async fn next(&mut self) -> Result<Option<Entry>> {
        let (mut name, mut link, mut size) = (None, None, None);
        loop {
            self.skip().await?;
            let mut block = [0; BLOCK];
            if !self.block(&mut block).await? || block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            check_sum(&block)?;
            let kind = block[156];
            let length = number(&block[124..136])?;
            self.left = length;
            self.padding = padding(length);
            match kind {
                b'x' => {
                    for (key, value) in pax(&self.small().await?)? {
                        match key.as_str() {
                            "path" => name = Some(value),
                            "linkpath" => link = Some(value),
                            "size" => size = Some(value.parse().map_err(|_| wrong("PAX size is not a number"))?),
                            _ => {}
                        }
                    }
                }
                b'L' => name = Some(text(&self.small().await?)),
                b'K' => link = Some(text(&self.small().await?)),
                b'g' => {}
                kind => {
                    let size = size.unwrap_or(length);
                    self.left = size;
                    self.padding = padding(size);
                    let name = name.unwrap_or_else(|| ustar_name(&block));
                    let link = link.unwrap_or_else(|| text(&block[157..257]));
                    let is_file = matches!(kind, b'0' | 0 | b'7');
                    return Ok(Some(Entry { name: clean(&name), size, is_file, link }));
                }
            }
        }
    }

    /// Up to `limit` bytes more of the current entry; empty at its end.
    pub(crate) async fn piece(&mut self, limit: usize) -> Result<bytes::Bytes> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(limit);
        let mut data = vec![0; want];
        self.source.read_exact(&mut data).await.map_err(broken)?;
        self.left -= want as u64;
        Ok(data.into())
    }

    /// All of the current entry, which must not be larger than `limit`.
    pub(crate) async fn whole(&mut self, limit: u64) -> Result<bytes::Bytes> {
        if self.left > limit {
            return Err(wrong(&format!("an entry has {} bytes where {limit} are the most", self.left)));
        }
        self.piece(usize::try_from(limit).unwrap_or(usize::MAX)).await
    }

    async fn small(&mut self) -> Result<Vec<u8>> {
        Ok(self.whole(MAX_NAME).await?.into())
    }

    async fn skip(&mut self) -> Result<()> {
        let mut rest = (&mut self.source).take(self.left + self.padding);
        let skipped = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map_err(broken)?;
        if skipped < self.left {
            return Err(wrong("it ends in the middle of an entry"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads a block; `false` at the end of the source, which is taken for the archive's.
    async fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]).await.map_err(broken)? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(wrong("it ends in the middle of a header")),
                count => filled += count,
            }
        }
        Ok(true)
    }
}

/// Writes an archive.
pub(crate) struct Writer<W> {
    sink: W,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink }
    }

    /// Begins a file of this size; exactly as many bytes must follow, then [`Writer::end`].
    pub(crate) async fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        if name.len() > 100 {
            return Err(Error::internal(format!("archive name {name:?} is too long")));
        }
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000444\0");
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        if size < 1 << 33 {
            block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        } else {
            block[128..136].copy_from_slice(&size.to_be_bytes());
            block[124] = 0x80;
        }
        block[136..148].copy_from_slice(b"00000000000\0");
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum = sum(&block);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.data(&block).await
    }

    /// Adds content.
    pub(crate) async fn data(&mut self, data: &[u8]) -> Result<()> {
        self.sink.write_all(data).await.map_err(|error| Error::io("writing the archive", error))
    }

    /// Ends a file of this size.
    pub(crate) async fn end(&mut self, size: u64) -> Result<()> {
        let zeros = [0; BLOCK];
        self.data(&zeros[..usize::try_from(padding(size)).unwrap_or(0)]).await
    }

    /// A file that is here whole.
    pub(crate) async fn file(&mut self, name: &str, data: &[u8]) -> Result<()> {
        self.begin(name, data.len() as u64).await?;
        self.data(data).await?;
        self.end(data.len() as u64).await
    }

    /// Ends the archive.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.data(&[0; 2 * BLOCK]).await?;
        self.sink.shutdown().await.map_err(|error| Error::io("finishing the archive", error))
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn wrong(why: &str) -> Error {
    Error::invalid_argument(format!("not an image archive: {why}"))
}

fn broken(error: std::io::Error) -> Error {
    Error::io("reading the archive", error)
}

fn sum(block: &[u8; BLOCK]) -> u64 {
    let field = |at: usize| (148..156).contains(&at);
    block.iter().enumerate().map(|(at, byte)| if field(at) { 32 } else { u64::from(*byte) }).sum()
}

fn check_sum(block: &[u8; BLOCK]) -> Result<()> {
    if number(&block[148..156])? == sum(block) { Ok(()) } else { Err(wrong("a header has a wrong checksum")) }
}

/// A number of a header: octal, or binary where the first bit is set.
fn number(field: &[u8]) -> Result<u64> {
    if field[0] & 0x80 != 0 {
        let high = &field[1..field.len() - 8];
        let mut low = [0; 8];
        low.copy_from_slice(&field[field.len() - 8..]);
        let value = u64::from_be_bytes(low);
        // No archive holds more than this, and sums of it don't overflow.
        return if field[0] == 0x80 && high.iter().all(|byte| *byte == 0) && value < 1 << 60 {
            Ok(value)
        } else {
            Err(wrong("a header has a number out of range"))
        };
    }
    let digits = text(field);
    let digits = digits.trim();
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| wrong("a header has a number that is none"))
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn ustar_name(block: &[u8; BLOCK]) -> String {
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}

/// Records of a PAX header: `length key=value\n`.
fn pax(data: &[u8]) -> Result<Vec<(String, String)>> {
    let bad = || wrong("a PAX header is damaged");
    let mut records = Vec::new();
    let mut rest = data;
    while !rest.is_empty() && rest[0] != 0 {
        let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length: usize = std::str::from_utf8(&rest[..blank]).ok().and_then(|t| t.parse().ok()).ok_or_else(bad)?;
        let record = rest.get(blank + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
        let (key, value) = std::str::from_utf8(record).ok().and_then(|t| t.split_once('=')).ok_or_else(bad)?;
        records.push((key.to_owned(), value.to_owned()));
        rest = &rest[length..];
    }
    Ok(records)
}

fn clean(name: &str) -> String {
    name.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}
