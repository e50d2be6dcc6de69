//! Reading archives: a stream of bytes becomes entries and their data.

use std::io::{BufRead, ErrorKind};

use super::{
    BLOCK, Entry, Error, Flaw, Kind, Limit, Segment,
    header::{Header, Type, more_extents, text},
    pax::Records,
    sparse,
};

/// What an archive may ask of its reader. All of it is checked before memory or disk is spent.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries, extended headers not counted.
    pub entries: u64,
    /// Bytes of one extended header or long name.
    pub extended: u64,
    /// Bytes of one name or link target.
    pub path: u64,
    /// Bytes of content over all entries, holes included.
    pub content: u64,
    /// Bytes of the whole archive, with headers, padding and whatever follows its end.
    pub archive: u64,
    /// Segments of one sparse file.
    pub segments: u64,
}

impl Default for Limits {
    /// Room for the largest images that exist, and an end to what is no image.
    fn default() -> Self {
        Self { entries: 4 << 20, extended: 1 << 20, path: 4096, content: 1 << 40, archive: 1 << 40, segments: 1 << 18 }
    }
}

/// Reads one archive: [`Reader::entry`] until it returns `None`, and between two calls the data of the entry by
/// [`Reader::data`] and [`Reader::advance`]. Data that nobody takes is skipped.
pub struct Reader<R> {
    source: R,
    limits: Limits,
    /// Bytes of the archive consumed.
    offset: u64,
    /// Bytes of the current entry's data and of its padding still to come.
    data: u64,
    padding: u64,
    entries: u64,
    content: u64,
    ended: bool,
}

/// What headers in front of an entry say about it.
#[derive(Default)]
struct Prefix {
    records: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// A reader at the start of an archive.
    pub fn new(source: R, limits: Limits) -> Self {
        Self { source, limits, offset: 0, data: 0, padding: 0, entries: 0, content: 0, ended: false }
    }

    /// Bytes of the archive consumed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry, or `None` at the end of the archive: a block of zeros, or no more bytes.
    pub fn entry(&mut self) -> Result<Option<Entry>, Error> {
        self.skip(self.data)?;
        self.data = 0;
        let padding = std::mem::take(&mut self.padding);
        self.skip(padding)?;
        let mut prefix = Prefix::default();
        while let Some((start, block)) = self.header()? {
            let at = |flaw| Error::Malformed { offset: start, flaw };
            let header = Header::new(&block).map_err(at)?;
            let kind = header.kind().map_err(at)?;
            if let Type::Member(_) | Type::Sparse = kind {
                return self.member(start, &header, kind, prefix).map(Some);
            }
            let bytes = self.extended(start, header.size().map_err(at)?)?;
            prefix.add(kind, bytes).map_err(at)?;
        }
        if prefix.is_empty() { Ok(None) } else { Err(self.malformed(Flaw::Truncated)) }
    }

    /// Some of the current entry's data; nothing when all of it has been taken.
    pub fn data(&mut self) -> Result<&[u8], Error> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let bytes = fill(&mut self.source, offset)?;
        if bytes.is_empty() {
            return Err(Error::Malformed { offset, flaw: Flaw::Truncated });
        }
        let length = usize::try_from(self.data).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..length])
    }

    /// Takes `count` bytes of what [`Reader::data`] returned.
    pub fn advance(&mut self, count: usize) {
        self.source.consume(count);
        self.data = self.data.saturating_sub(count as u64);
        self.offset += count as u64;
    }

    /// Reads what follows the end of the archive, up to the end of the source: padding to a whole tape record, or
    /// anything else, which readers ignore although it counts for the layer's digest.
    pub fn drain(&mut self) -> Result<u64, Error> {
        loop {
            let offset = self.offset;
            let length = fill(&mut self.source, offset)?.len();
            if length == 0 {
                return Ok(self.offset);
            }
            self.source.consume(length);
            self.offset += length as u64;
            self.check(Limit::Archive, self.offset, self.limits.archive)?;
        }
    }

    // === headers ===

    /// The next header block and where it starts; `None` at the end.
    fn header(&mut self) -> Result<Option<(u64, [u8; BLOCK])>, Error> {
        if self.ended {
            return Ok(None);
        }
        let start = self.offset;
        self.check(Limit::Archive, start, self.limits.archive)?;
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? || block == [0; BLOCK] {
            self.ended = true;
            return Ok(None);
        }
        Ok(Some((start, block)))
    }

    /// Fills `block`; false when the source ends before its first byte.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, Error> {
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = fill(&mut self.source, self.offset)?;
            if bytes.is_empty() {
                return if filled == 0 { Ok(false) } else { Err(self.malformed(Flaw::Truncated)) };
            }
            let length = bytes.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&bytes[..length]);
            self.source.consume(length);
            self.offset += length as u64;
            filled += length;
        }
        Ok(true)
    }

    /// The `size` bytes of an extended header that starts at `start`.
    fn extended(&mut self, start: u64, size: u64) -> Result<Vec<u8>, Error> {
        if size > self.limits.extended {
            return Err(Error::Limit { offset: start, limit: Limit::ExtendedHeader, maximum: self.limits.extended });
        }
        self.data = size;
        let mut bytes = Vec::new();
        loop {
            let piece = self.data()?;
            if piece.is_empty() {
                break;
            }
            let length = piece.len();
            bytes.extend_from_slice(piece);
            self.advance(length);
        }
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn member(&mut self, start: u64, header: &Header<'_>, kind: Type, prefix: Prefix) -> Result<Entry, Error> {
        let at = |flaw| Error::Malformed { offset: start, flaw };
        let mut entry = prefix.describe(header, kind).map_err(at)?;
        let records = prefix.records.unwrap_or_default();
        // Only files have data. Others may state a size, which means nothing and is not skipped: as Go reads it.
        let stored = match (entry.kind, records.size) {
            (Kind::File, Some(size)) => size,
            (Kind::File, None) => header.size().map_err(at)?,
            _ => 0,
        };
        self.entries += 1;
        self.check(Limit::Entries, self.entries, self.limits.entries)?;
        self.check(Limit::Path, entry.name.len().max(entry.link.len()) as u64, self.limits.path)?;
        self.check(Limit::Archive, start.saturating_add(stored), self.limits.archive)?;
        (self.data, self.padding) = (stored, padding(stored));
        entry.size = stored;
        if kind == Type::Sparse {
            self.old_sparse(start, header, &mut entry)?;
        } else if entry.kind == Kind::File && records.sparse.is_used() {
            self.pax_sparse(start, records.sparse, &mut entry)?;
        }
        self.content = self.content.saturating_add(entry.size);
        self.check(Limit::Content, self.content, self.limits.content)?;
        Ok(entry)
    }

    // === sparse files ===

    /// GNU's old format: the map is in the header and in blocks that follow it, which the size does not count.
    fn old_sparse(&mut self, start: u64, header: &Header<'_>, entry: &mut Entry) -> Result<(), Error> {
        let at = |flaw| Error::Malformed { offset: start, flaw };
        let (mut pairs, mut more, size) = header.sparse().map_err(at)?;
        while more {
            let mut block = [0; BLOCK];
            if !self.block(&mut block)? {
                return Err(self.malformed(Flaw::Truncated));
            }
            let (further, again) = more_extents(&block).map_err(at)?;
            pairs.extend(further);
            more = again;
            self.check(Limit::Segments, pairs.len() as u64, self.limits.segments)?;
        }
        self.place(start, pairs, size, entry)
    }

    /// The PAX formats: the map is in the records (0.0 and 0.1) or in front of the data (1.0).
    fn pax_sparse(&mut self, start: u64, records: super::pax::Sparse, entry: &mut Entry) -> Result<(), Error> {
        let at = |flaw| Error::Malformed { offset: start, flaw };
        let size = records.size.ok_or(at(Flaw::Sparse))?;
        let numbers = match (records.major, records.minor.unwrap_or(0), records.map) {
            (None | Some(0), _, Some(map)) => map,
            (Some(1), 0, None) => self.leading_map()?,
            // A real size without a map: nothing is known to write this.
            _ => return Err(at(Flaw::Sparse)),
        };
        if !numbers.len().is_multiple_of(2) {
            return Err(at(Flaw::Sparse));
        }
        if let Some(name) = records.name {
            entry.name = name;
            self.check(Limit::Path, entry.name.len() as u64, self.limits.path)?;
            if entry.name.is_empty() {
                return Err(at(Flaw::NoName));
            }
        }
        let pairs: Vec<_> = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        self.place(start, pairs, size, entry)
    }

    fn place(&self, start: u64, pairs: Vec<(u64, u64)>, size: u64, entry: &mut Entry) -> Result<(), Error> {
        let segments: Vec<Segment> =
            sparse::map(pairs, size, self.data).map_err(|flaw| Error::Malformed { offset: start, flaw })?;
        (entry.sparse, entry.size) = (Some(segments), size);
        Ok(())
    }

    /// The map of version 1.0: decimal lines, first the number of segments, padded to whole blocks.
    fn leading_map(&mut self) -> Result<Vec<u64>, Error> {
        let start = self.offset;
        let (mut numbers, mut expected, mut number) = (Vec::new(), None, None);
        loop {
            if self.data < BLOCK as u64 {
                return Err(self.malformed(Flaw::Sparse));
            }
            let mut block = [0; BLOCK];
            self.block(&mut block)?;
            self.data -= BLOCK as u64;
            for byte in block {
                match (byte, number) {
                    (b'0'..=b'9', _) => {
                        let digit = u64::from(byte - b'0');
                        let value = number.unwrap_or(0u64).checked_mul(10).and_then(|value| value.checked_add(digit));
                        number = Some(value.ok_or(Error::Malformed { offset: start, flaw: Flaw::Sparse })?);
                    }
                    (b'\n', Some(value)) => {
                        number = None;
                        match expected {
                            None => {
                                self.check(Limit::Segments, value, self.limits.segments)?;
                                expected = Some(value * 2);
                            }
                            Some(_) => numbers.push(value),
                        }
                        if expected == Some(numbers.len() as u64) {
                            return Ok(numbers);
                        }
                    }
                    _ => return Err(Error::Malformed { offset: start, flaw: Flaw::Sparse }),
                }
            }
        }
    }

    // === bytes ===

    fn skip(&mut self, mut count: u64) -> Result<(), Error> {
        while count > 0 {
            let offset = self.offset;
            let available = fill(&mut self.source, offset)?.len();
            if available == 0 {
                return Err(self.malformed(Flaw::Truncated));
            }
            let length = usize::try_from(count).unwrap_or(usize::MAX).min(available);
            self.source.consume(length);
            self.offset += length as u64;
            count -= length as u64;
        }
        Ok(())
    }

    fn check(&self, limit: Limit, value: u64, maximum: u64) -> Result<(), Error> {
        if value > maximum { Err(Error::Limit { offset: self.offset, limit, maximum }) } else { Ok(()) }
    }

    fn malformed(&self, flaw: Flaw) -> Error {
        Error::Malformed { offset: self.offset, flaw }
    }
}

impl Prefix {
    fn is_empty(&self) -> bool {
        self.records.is_none() && self.name.is_none() && self.link.is_none()
    }

    /// Takes over the content of one extended header. A second one of a kind is refused, because readers differ in
    /// which of them they believe. Global records are checked and then ignored, as Go does.
    fn add(&mut self, kind: Type, bytes: Vec<u8>) -> Result<(), Flaw> {
        let taken = match kind {
            Type::Global => return Records::parse(&bytes).map(|_| ()),
            Type::Extended => self.records.replace(Records::parse(&bytes)?).is_some(),
            Type::LongName => self.name.replace(text(&bytes).to_vec()).is_some(),
            _ => self.link.replace(text(&bytes).to_vec()).is_some(),
        };
        if taken { Err(Flaw::Ambiguous) } else { Ok(()) }
    }

    /// The entry that `header` and this prefix describe, without its size.
    fn describe(&self, header: &Header<'_>, kind: Type) -> Result<Entry, Flaw> {
        let kind = if let Type::Member(kind) = kind { kind } else { Kind::File };
        let none = Records::default();
        let records = self.records.as_ref().unwrap_or(&none);
        let mut entry = Entry::new(kind, one_of(&self.name, &records.path)?.unwrap_or_else(|| header.name()));
        if kind == Kind::HardLink || kind == Kind::Symlink {
            entry.link = one_of(&self.link, &records.link)?.unwrap_or_else(|| header.link());
            if entry.link.is_empty() {
                return Err(Flaw::NoTarget);
            }
        }
        if entry.name.is_empty() {
            return Err(Flaw::NoName);
        }
        entry.mode = header.mode()?;
        entry.uid = owner(records.uid, header.uid(), "uid")?;
        entry.gid = owner(records.gid, header.gid(), "gid")?;
        entry.mtime.seconds = header.mtime()?;
        entry.mtime = records.mtime.unwrap_or(entry.mtime);
        entry.atime = records.atime;
        entry.xattrs.clone_from(&records.xattrs);
        if kind == Kind::CharDevice || kind == Kind::BlockDevice {
            entry.device = header.device()?;
        }
        Ok(entry)
    }
}

/// The longer name that was given, by GNU's or by PAX's means but not by both.
fn one_of(gnu: &Option<Vec<u8>>, pax: &Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Flaw> {
    match (gnu, pax) {
        (Some(_), Some(_)) => Err(Flaw::Ambiguous),
        (name, None) | (None, name) => Ok(name.clone()),
    }
}

/// An owner that a system call takes as one: 32 bits, and not -1.
fn owner(pax: Option<u64>, header: Result<u64, Flaw>, field: &'static str) -> Result<u32, Flaw> {
    let value = pax.map_or(header, Ok)?;
    u32::try_from(value).ok().filter(|&value| value != u32::MAX).ok_or(Flaw::Number(field))
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn fill<R: BufRead>(source: &mut R, offset: u64) -> Result<&[u8], Error> {
    // A first look that is thrown away: the borrow checker does not let a loop return what it borrowed.
    loop {
        match source.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Read { offset, source }),
        }
    }
    source.fill_buf().map_err(|source| Error::Read { offset, source })
}
