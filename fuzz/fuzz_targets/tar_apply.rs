//! Applying archives: whatever they say, nothing beside the root changes, and what was made can be removed.
#![no_main]

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use kevel_diff::{
    Form, Options, apply,
    apply::RootEntry,
    tar::{Entry, Kind, Limits, Writer},
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};

/// Names that meet each other, lead out, or hide things.
const NAMES: [&str; 16] = [
    "a", "b", "a/b", "a/b/c", "b/c", "../out", "/out", "./a", "a/../b", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", ".wh..wh..opq",
    "a/b/../../../out", "c", "./",
];
const LINKS: [&str; 10] = ["a", "b", "../out", "/", "..", "../../out", "a/b", "/out", "c", "."];

#[derive(Arbitrary, Debug)]
struct Item {
    name: u8,
    link: u8,
    kind: u8,
    mode: u16,
    data: u8,
}

#[derive(Arbitrary, Debug)]
struct Input {
    overlay: bool,
    root: bool,
    items: Vec<Item>,
    /// An archive of its own instead of one made of items.
    raw: Option<Vec<u8>>,
}

fuzz_target!(|input: Input| {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let (root, out) = (dir.path().join("root"), dir.path().join("out"));
    fs::create_dir(&root).expect("a directory");
    fs::write(&out, "untouched").expect("a file");
    let before = look(dir.path(), &out);
    let archive = input.raw.clone().unwrap_or_else(|| archive(&input.items));
    let options = Options {
        form: if input.overlay { Form::Overlay } else { Form::Plain },
        root_entry: if input.root { RootEntry::Apply } else { RootEntry::Ignore },
        limits: Limits { content: 1 << 20, archive: 1 << 20, entries: 64, segments: 64, ..Limits::default() },
        ..Options::default()
    };
    let opened = fs::File::open(&root).expect("it was made");
    let _ = apply(&archive[..], &opened, &options);
    assert_eq!(look(dir.path(), &out), before, "something beside the root has changed");
    dir.close().expect("what was made can be removed");
});

/// Everything about the neighbours of the root.
fn look(dir: &Path, out: &Path) -> (Vec<String>, Vec<u8>, u32, u32, u64, i64) {
    let names = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    let about = fs::symlink_metadata(out).expect("it stays");
    (names, fs::read(out).expect("it stays"), about.mode(), about.uid(), about.nlink(), about.mtime_nsec())
}

fn archive(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for item in items.iter().take(32) {
        let kind = match item.kind % 7 {
            0 | 1 => Kind::File,
            2 => Kind::Directory,
            3 => Kind::Symlink,
            4 => Kind::HardLink,
            5 => Kind::Fifo,
            _ => Kind::CharDevice,
        };
        let file = kind == Kind::File;
        let mut entry = Entry::new(kind, NAMES[usize::from(item.name) % NAMES.len()]);
        if matches!(kind, Kind::Symlink | Kind::HardLink) {
            entry.link = LINKS[usize::from(item.link) % LINKS.len()].into();
        }
        entry.mode = u32::from(item.mode) & 0o7777;
        entry.size = if file { item.data.into() } else { 0 };
        if writer.entry(&entry).is_err() || (file && writer.data(&vec![7; item.data.into()]).is_err()) {
            break;
        }
    }
    writer.finish().unwrap_or_default()
}
