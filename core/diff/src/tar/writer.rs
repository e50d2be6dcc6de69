//! Writing archives: entries and their data become a PAX archive, byte for byte the same for the same entries.

use std::io::{self, Write};

use super::{BLOCK, Entry, Kind, Time};

/// Writes one archive: [`Writer::entry`], then the data of a file in pieces by [`Writer::data`], and at the end
/// [`Writer::finish`].
///
/// Headers are ustar. What does not fit there, and only that, goes into PAX records: so most entries have none.
pub struct Writer<W> {
    sink: W,
    /// Bytes of the current entry's data and padding still to come.
    data: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// A writer at the start of an archive.
    pub fn new(sink: W) -> Self {
        Self { sink, data: 0, padding: 0 }
    }

    /// Starts `entry`, whose data follows if it is a file. Sparse maps are not written: holes become zeros.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.close()?;
        let mut records = Vec::new();
        let header = encode(entry, &mut records);
        if !records.is_empty() {
            let mut extended = Block::new();
            extended.bytes(0, 100, b"PaxHeaders/entry");
            extended.facts(b'x', &Facts { mode: 0o644, size: records.len() as u64, ..Facts::default() });
            self.sink.write_all(&extended.finish())?;
            self.sink.write_all(&records)?;
            self.pad(records.len().wrapping_neg() % BLOCK)?;
        }
        self.sink.write_all(&header)?;
        if entry.kind == Kind::File {
            self.data = entry.size;
            self.padding = (entry.size.wrapping_neg() % BLOCK as u64) as usize;
        }
        Ok(())
    }

    /// Adds data to the current entry. More than its size is an error.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.data = self.data.checked_sub(bytes.len() as u64).ok_or_else(|| io::Error::other("the file grew"))?;
        self.sink.write_all(bytes)
    }

    /// Ends the archive with two blocks of zeros and returns the sink.
    pub fn finish(mut self) -> io::Result<W> {
        self.close()?;
        self.pad(2 * BLOCK)?;
        Ok(self.sink)
    }

    fn close(&mut self) -> io::Result<()> {
        if self.data > 0 {
            return Err(io::Error::other("the file shrank"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.pad(padding)
    }

    fn pad(&mut self, count: usize) -> io::Result<()> {
        self.sink.write_all(&[0; 2 * BLOCK][..count])
    }
}

/// The header block of `entry`; what does not fit is added to `records`.
fn encode(entry: &Entry, records: &mut Vec<u8>) -> [u8; BLOCK] {
    let mut block = Block::new();
    let mut name = entry.name.clone();
    if entry.kind == Kind::Directory && !name.ends_with(b"/") {
        name.push(b'/');
    }
    if !block.name(&name) {
        record(records, b"path", &name);
    }
    if !entry.link.is_empty() && !block.bytes(157, 100, &entry.link) {
        record(records, b"linkpath", &entry.link);
    }
    let size = if entry.kind == Kind::File { entry.size } else { 0 };
    let seconds = entry.mtime.seconds;
    for (key, value, limit) in [
        ("size", size, 0o77_777_777_777),
        ("uid", entry.uid.into(), 0o7_777_777),
        ("gid", entry.gid.into(), 0o7_777_777),
    ] {
        if value > limit {
            record(records, key.as_bytes(), value.to_string().as_bytes());
        }
    }
    if entry.mtime.nanos != 0 || !(0..=0o77_777_777_777).contains(&seconds) {
        record(records, b"mtime", decimal(entry.mtime).as_bytes());
    }
    if let Some(atime) = entry.atime {
        record(records, b"atime", decimal(atime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    let kind = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    let mtime = u64::try_from(seconds).unwrap_or(0);
    block.facts(kind, &Facts { mode: entry.mode, uid: entry.uid, gid: entry.gid, size, mtime });
    if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
        block.number(329, 8, entry.device.0.into());
        block.number(337, 8, entry.device.1.into());
    }
    block.finish()
}

/// Adds one PAX record. Its length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.ilog10() as usize + 1 {
        length = rest + length.ilog10() as usize + 1;
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Seconds with a fraction, as PAX writes times; before 1970 the fraction counts away from zero.
fn decimal(time: Time) -> String {
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

/// The numbers that every header has. Those that don't fit are zero there and true in a PAX record.
#[derive(Default)]
struct Facts {
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: u64,
}

/// A header block being filled.
struct Block([u8; BLOCK]);

impl Block {
    fn new() -> Self {
        Self([0; BLOCK])
    }

    /// Writes `value` into a field, cut to its width; false if it was cut.
    fn bytes(&mut self, at: usize, width: usize, value: &[u8]) -> bool {
        let length = value.len().min(width);
        self.0[at..at + length].copy_from_slice(&value[..length]);
        value.len() <= width
    }

    /// Writes a name, split at a slash between prefix and name if it must be; false if it does not fit.
    fn name(&mut self, name: &[u8]) -> bool {
        if name.len() <= 100 {
            return self.bytes(0, 100, name);
        }
        let split = (name.len().saturating_sub(101)..name.len().min(156))
            .find(|&at| at > 0 && at + 1 < name.len() && name[at] == b'/');
        match split {
            Some(at) => self.bytes(345, 155, &name[..at]) && self.bytes(0, 100, &name[at + 1..]),
            None => self.bytes(0, 100, name),
        }
    }

    /// Writes a number in octal with a NUL behind it; zero if it does not fit.
    fn number(&mut self, at: usize, width: usize, value: u64) {
        let text = format!("{value:0digits$o}", digits = width - 1);
        let text = if text.len() < width { text } else { "0".repeat(width - 1) };
        self.bytes(at, width, text.as_bytes());
    }

    fn facts(&mut self, kind: u8, facts: &Facts) {
        self.number(100, 8, facts.mode.into());
        self.number(108, 8, facts.uid.into());
        self.number(116, 8, facts.gid.into());
        self.number(124, 12, facts.size);
        self.number(136, 12, facts.mtime);
        self.0[156] = kind;
        self.bytes(257, 8, b"ustar\x0000");
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.bytes(148, 8, b"        ");
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.number(148, 7, sum);
        self.0
    }
}
