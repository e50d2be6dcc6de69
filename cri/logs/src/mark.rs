//! How far a stream is logged, as a few bytes in a file.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// What is logged of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// So many bytes.
    pub(crate) logged: u64,
    /// Lines that are being written.
    pub(crate) intent: Option<Intent>,
}

/// Lines that are being written: they are in the log if it has become long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    /// With them, so many bytes of the stream are logged.
    pub(crate) to: u64,
    /// The log.
    pub(crate) inode: u64,
    /// Its length before.
    pub(crate) before: u64,
    /// The length of the lines.
    pub(crate) size: u64,
}

const LENGTH: usize = 48;

/// Also says how the rest is to be read.
const MAGIC: u64 = u64::from_le_bytes(*b"kvspool1");

impl Mark {
    /// In one piece: a process that is killed has written it or not.
    pub(crate) fn write(&self, file: &File) -> io::Result<()> {
        let Intent { to, inode, before, size } =
            self.intent.unwrap_or(Intent { to: self.logged, inode: 0, before: 0, size: 0 });
        let mut bytes = [0; LENGTH];
        for (place, number) in bytes.chunks_exact_mut(8).zip([MAGIC, self.logged, to, inode, before, size]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        file.write_all_at(&bytes, 0)
    }

    /// Whether it can be that of a stream of which so much was read.
    pub(crate) fn fits(&self, end: u64) -> bool {
        let to = self.intent.map_or(self.logged, |intent| intent.to);
        self.logged <= to && to <= end
    }
}

/// The mark of a file that has one.
pub(crate) fn read(file: &File) -> Option<Mark> {
    let mut bytes = [0; LENGTH];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (numbers, _) = bytes.as_chunks::<8>();
    let numbers: Vec<_> = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let &[MAGIC, logged, to, inode, before, size] = numbers.as_slice() else { return None };
    Some(Mark { logged, intent: (size > 0).then_some(Intent { to, inode, before, size }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read(&file), None, "an empty file has none");
        let intent = Intent { to: 7, inode: 3, before: u64::MAX, size: 1 };
        for mark in [Mark::default(), Mark { logged: 5, intent: None }, Mark { logged: 5, intent: Some(intent) }] {
            mark.write(&file).unwrap();
            assert_eq!(read(&file), Some(mark));
        }
        file.write_all_at(b"other", 0).unwrap();
        assert_eq!(read(&file), None);
    }

    #[test]
    fn a_mark_fits_a_stream_that_is_as_long() {
        let writing = |to| Mark { logged: 5, intent: Some(Intent { to, inode: 0, before: 0, size: 1 }) };
        for (mark, end, want) in [
            (Mark { logged: 5, intent: None }, 5, true),
            (Mark { logged: 5, intent: None }, 4, false),
            (writing(7), 7, true),
            (writing(7), 6, false),
            (writing(4), 9, false),
        ] {
            assert_eq!(mark.fits(end), want, "{mark:?} {end}");
        }
    }
}
