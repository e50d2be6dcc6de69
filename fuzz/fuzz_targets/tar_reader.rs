//! The tar reader: any bytes give entries that keep their promises, and what was read is written and read the same.
#![no_main]

use kevel_diff::tar::{Entry, Kind, Limits, Reader, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { content: 1 << 40, archive: 1 << 20, segments: 64, entries: 64, ..Limits::default() };
    let mut reader = Reader::new(bytes, limits);
    while let Ok(Some(entry)) = reader.entry() {
        check(&entry);
        let mut data = Vec::new();
        while let Ok(piece @ [_, ..]) = reader.data() {
            data.extend_from_slice(piece);
            let length = piece.len();
            reader.advance(length);
        }
        if entry.sparse.is_none() && data.len() as u64 == entry.size {
            assert_eq!(again(&entry, &data), normal(entry));
        }
    }
    assert!(reader.offset() <= bytes.len() as u64);
});

fn check(entry: &Entry) {
    assert!(!entry.name.is_empty() && !entry.name.contains(&0) && !entry.link.contains(&0));
    assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.gid != u32::MAX);
    assert!(entry.mtime.nanos < 1_000_000_000);
    let mut end = 0;
    for segment in entry.sparse.iter().flatten() {
        assert!(segment.offset >= end && segment.length > 0);
        end = segment.offset + segment.length;
    }
    assert!(end <= entry.size);
}

fn again(entry: &Entry, data: &[u8]) -> Entry {
    let mut writer = Writer::new(Vec::new());
    writer.entry(entry).expect("nothing is open");
    writer.data(data).expect("as long as the entry says");
    let archive = writer.finish().expect("the data is complete");
    let read = Reader::new(&archive[..], Limits { extended: 1 << 22, ..Limits::default() }).entry();
    read.expect("it was just written").expect("there is one entry")
}

/// What a writer makes of an entry: directories end in a slash, and devices have small numbers.
fn normal(mut entry: Entry) -> Entry {
    if entry.kind == Kind::Directory && !entry.name.ends_with(b"/") {
        entry.name.push(b'/');
    }
    let fits = |number: u32| if number > 0o7_777_777 { 0 } else { number };
    entry.device = (fits(entry.device.0), fits(entry.device.1));
    entry
}
