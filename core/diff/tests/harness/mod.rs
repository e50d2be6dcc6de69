//! What the tests share: archives built byte by byte, and trees written down as text.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{
    collections::HashMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use kevel_diff::{Applied, Error, Options, apply};

/// An archive being built. Nothing is checked: lies are the point.
#[derive(Clone, Default)]
pub(crate) struct Archive(pub(crate) Vec<u8>);

/// A header block being built; the checksum is set when it is added.
#[derive(Clone)]
pub(crate) struct Block(pub(crate) [u8; 512]);

impl Block {
    /// A ustar header.
    pub(crate) fn new(kind: u8, name: &[u8]) -> Self {
        let mut block = Self([0; 512]);
        block.set(0, &name[..name.len().min(100)]);
        block.set(100, b"0000755\0").set(108, b"0000000\0").set(116, b"0000000\0");
        block.set(124, b"00000000000\0").set(136, b"00000000000\0").set(257, b"ustar\x0000");
        block.0[156] = kind;
        block
    }

    pub(crate) fn set(&mut self, at: usize, value: &[u8]) -> &mut Self {
        self.0[at..at + value.len()].copy_from_slice(value);
        self
    }

    pub(crate) fn size(&mut self, size: u64) -> &mut Self {
        self.set(124, format!("{size:011o}\0").as_bytes())
    }

    pub(crate) fn link(&mut self, target: &[u8]) -> &mut Self {
        self.set(157, target)
    }

    pub(crate) fn sum(mut self) -> [u8; 512] {
        self.set(148, b"        ");
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.set(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn block(mut self, block: &Block) -> Self {
        self.0.extend_from_slice(&block.clone().sum());
        self
    }

    /// Data, padded to whole blocks.
    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A header that says how much data it has, and the data.
    pub(crate) fn member(self, kind: u8, name: impl AsRef<[u8]>, data: &[u8]) -> Self {
        let mut block = Block::new(kind, name.as_ref());
        block.size(data.len() as u64);
        self.block(&block).data(data)
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, data: &str) -> Self {
        self.member(b'0', name, data.as_bytes())
    }

    pub(crate) fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.member(b'5', name, b"")
    }

    pub(crate) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.block(Block::new(b'2', name.as_ref()).link(target.as_ref()))
    }

    pub(crate) fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.block(Block::new(b'1', name.as_ref()).link(target.as_ref()))
    }

    pub(crate) fn device(self, kind: u8, name: &str, major: &str, minor: &str) -> Self {
        self.block(Block::new(kind, name.as_bytes()).set(329, major.as_bytes()).set(337, minor.as_bytes()))
    }

    /// PAX records for the next member.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.member(
            b'x',
            "pax",
            &records.iter().flat_map(|(key, value)| record(key.as_bytes(), value)).collect::<Vec<_>>(),
        )
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// One PAX record with its true length.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).find(|&length: &usize| rest + length.to_string().len() == length).unwrap();
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Applies `archive` to the directory `root`.
pub(crate) fn apply_to(root: &Path, archive: &[u8], options: &Options) -> Result<Applied, Error> {
    apply(archive, fs::File::open(root).unwrap(), options)
}

/// The error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// How much of a tree is written down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Names, kinds, content and link targets.
    Content,
    /// Owners, modes, attributes and times, too; of directories no times.
    All,
    /// Times of directories, too.
    Times,
}

/// Every file beneath `root` as one line, in order.
pub(crate) fn tree(root: &Path, detail: Detail) -> Vec<String> {
    let (mut lines, mut links) = (Vec::new(), HashMap::new());
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        walk(root, &dir, detail, &mut lines, &mut links, &mut todo);
    }
    lines
}

fn walk(
    root: &Path,
    dir: &Path,
    detail: Detail,
    lines: &mut Vec<String>,
    links: &mut HashMap<(u64, u64), String>,
    todo: &mut Vec<std::path::PathBuf>,
) {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let stat = fs::symlink_metadata(&path).unwrap();
        let mut line = name.clone();
        let kind = stat.mode() & 0o170_000;
        match kind {
            0o040_000 => line += "/",
            0o120_000 => {
                let target = fs::read_link(&path).unwrap();
                line += &format!(" -> {}", target.as_os_str().as_bytes().escape_ascii());
            }
            0o100_000 => {
                let digest = kevel_model::Digest::sha256(&fs::read(&path).unwrap());
                line += &format!(" {} bytes {}", stat.len(), &digest.encoded()[..8]);
            }
            0o010_000 => line += " pipe",
            _ => line += &format!(" device {:o} {}:{}", kind, stat.rdev() >> 8, stat.rdev() & 0xff),
        }
        if kind != 0o040_000 && stat.nlink() > 1 {
            line += &format!(" = {}", links.entry((stat.dev(), stat.ino())).or_insert(name));
        }
        if detail != Detail::Content {
            line += &format!(" {:o} {}:{} {:?}", stat.mode() & 0o7777, stat.uid(), stat.gid(), xattrs(&path));
            if kind != 0o040_000 || detail == Detail::Times {
                line += &format!(" {}.{:09}", stat.mtime(), stat.mtime_nsec());
            }
        }
        lines.push(line);
        if stat.is_dir() {
            todo.push(path);
        }
    }
}

/// The extended attributes of `path`, as text.
pub(crate) fn xattrs(path: &Path) -> Vec<String> {
    let mut names = vec![0; 4096];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return Vec::new() };
    let mut found: Vec<_> = names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            format!("{}={}", name.escape_ascii(), value[..length].escape_ascii())
        })
        .collect();
    found.sort();
    found
}
