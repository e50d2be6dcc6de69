//! Applying a layer: the entries of an uncompressed archive become files beneath a root.
//!
//! Nothing outside of the root is ever read or changed, whatever the archive says: every name is looked up one
//! component at a time from an open directory, the kernel never follows a link for us ([`dirs`]), and nothing is opened
//! that was not made a moment before. Errors name the entry; what was applied before it stays, because only the caller
//! knows whether the root is worth keeping.

pub(crate) mod dirs;
mod name;
mod node;
mod remove;
mod whiteout;

use std::{
    collections::{BTreeMap, HashSet},
    io::BufRead,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{
    Error,
    error::Flaw,
    layer::Ratio,
    tar::{self, Entry, Kind, Limit, Limits, Reader},
};
use dirs::{Dir, Dirs, Missing};
use name::{Name, Special};
pub(crate) use name::{OPAQUE as WHITEOUT_OPAQUE, WHITEOUT};
pub(crate) use node::{proc_path, steers_overlay};
pub(crate) use whiteout::is_opaque;

/// How a layer says that a file of the layers below is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As overlayfs has it in an upper directory: a character device 0:0 hides a file, the attribute
    /// `trusted.overlay.opaque` hides what a directory had. The root starts empty.
    Overlay,
    /// Files are deleted: the root shows the layers below, because it is mounted over them or a copy of them.
    #[default]
    Plain,
}

/// What an entry for the root directory itself (`./`) does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootEntry {
    /// Nothing, as in containerd: archives of temporary directories say 0700, and no image wants that for `/`.
    #[default]
    Ignore,
    /// It sets the root's owner, mode, times and attributes.
    Apply,
}

/// How to apply a layer.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How deletions are written down.
    pub form: Form,
    /// For [`Form::Overlay`]: the directories of the layers below, topmost first. A directory that the layer uses but
    /// does not describe takes its owner, mode and attributes from there, and links that lead to it are followed.
    pub lowers: Vec<PathBuf>,
    /// What an entry for the root does.
    pub root_entry: RootEntry,
    /// What the archive may ask for.
    pub limits: Limits,
    /// How much a compressed layer may grow.
    pub ratio: Ratio,
}

/// What applying a layer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries applied, whiteouts included.
    pub entries: u64,
    /// Bytes of file content, holes not included. This is the size that containerd reports.
    pub size: u64,
    /// Inodes made; names for the same file count once.
    pub inodes: u64,
    /// Extended attributes that were not set, because they steer overlayfs or the file system has no such attributes.
    pub skipped_xattrs: u64,
    /// Bytes of the archive, with what followed its end.
    pub archive: u64,
}

/// Applies the uncompressed archive in `source` to the directory `root`, and reads `source` to its end.
///
/// Blocks; run it on a thread that may. Nothing is synced to disk: call `syncfs` once for all layers. The root must not
/// be changed by others meanwhile; different roots are independent of each other.
pub fn apply<R: BufRead>(source: R, root: impl AsFd, options: &Options) -> Result<Applied, Error> {
    let mut applier = Applier::new(source, root, options)?;
    while let Some(entry) = applier.reader.entry().map_err(Error::Archive)? {
        applier.entry(&entry)?;
    }
    applier.finish()
}

struct Applier<'a, R> {
    reader: Reader<R>,
    dirs: Dirs,
    options: &'a Options,
    applied: Applied,
    /// The times of directories by path. They are set at the end, because every file made in one changes them.
    times: BTreeMap<Vec<u8>, rustix::fs::Timestamps>,
    /// Paths that this layer made or passed through, which its own whiteouts don't hide. Kept in [`Form::Plain`] only.
    made: HashSet<Vec<u8>>,
}

/// Where an entry goes: a directory and a name in it.
#[derive(Clone)]
struct Place {
    dir: Rc<Dir>,
    base: Vec<u8>,
}

impl Place {
    /// The path from the root, without links.
    fn path(&self) -> Vec<u8> {
        dirs::join(&self.dir.path, &self.base)
    }
}

impl<'a, R: BufRead> Applier<'a, R> {
    fn new(source: R, root: impl AsFd, options: &'a Options) -> Result<Self, Error> {
        let reader = Reader::new(source, options.limits.clone());
        let io = |doing: String| move |source: Errno| Error::Io { doing, source: source.into() };
        let root = reopen(root).map_err(io("opening the root of the layer".into()))?;
        let mut lowers = Vec::new();
        for lower in options.lowers.iter().filter(|_| options.form == Form::Overlay) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(lower, flags, Mode::empty());
            lowers.push(fd.map_err(io(format!("opening the lower layer {}", lower.display())))?);
        }
        let dirs = Dirs::new(root, lowers, options.limits.path);
        let (times, made) = (BTreeMap::new(), HashSet::new());
        Ok(Self { reader, dirs, options, applied: Applied::default(), times, made })
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        let name = Name::parse(&entry.name).map_err(|flaw| flawed(entry, flaw))?;
        self.applied.entries += 1;
        let Some(base) = name.base() else {
            return self.root(entry);
        };
        if matches!(name.special(), Ok(Special::Metadata)) {
            return Ok(());
        }
        let special = name.special().map_err(|flaw| flawed(entry, flaw))?;
        let dir = self.parent(entry, name.parent(), Missing::Create)?;
        match special {
            Special::Opaque => self.opaque(entry, &dir),
            Special::Whiteout(hidden) => self.whiteout(entry, &Place { dir, base: hidden.to_vec() }),
            _ => self.place(entry, Place { dir, base: base.to_vec() }),
        }
    }

    /// The directory `path` beneath the root.
    fn parent(&mut self, entry: &Entry, path: &[u8], missing: Missing) -> Result<Rc<Dir>, Error> {
        let dir = self.dirs.get(path, missing).map_err(|error| match error {
            dirs::Failure::Flaw(flaw) => flawed(entry, flaw),
            dirs::Failure::Io(doing, source) => failed(entry, doing)(source),
        })?;
        // One entry can ask for two thousand directories, so these count, too.
        let maximum = self.options.limits.entries;
        if self.applied.entries + self.dirs.made() > maximum {
            let offset = self.reader.offset();
            return Err(Error::Archive(tar::Error::Limit { offset, limit: Limit::Entries, maximum }));
        }
        Ok(dir)
    }

    fn root(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.kind != Kind::Directory {
            return Err(flawed(entry, Flaw::Root));
        }
        if self.options.root_entry == RootEntry::Apply {
            let root = self.dirs.root();
            self.describe(entry, root.fd.as_fd())?;
            self.times.insert(Vec::new(), node::times(entry));
        }
        Ok(())
    }

    /// Sets the times of directories, reads the source to its end and says what was done.
    fn finish(mut self) -> Result<Applied, Error> {
        self.applied.archive = self.reader.drain().map_err(Error::Archive)?;
        for (path, times) in std::mem::take(&mut self.times) {
            let set = || -> Result<(), Errno> {
                let fd = dirs::open(self.dirs.root().fd.as_fd(), &path)?;
                rustix::fs::futimens(fd, &times)
            };
            set().map_err(|source| Error::Place {
                name: path.escape_ascii().to_string(),
                doing: "setting the times of the directory",
                source: source.into(),
            })?;
        }
        self.applied.inodes += self.dirs.made();
        Ok(self.applied)
    }
}

/// A descriptor of its own for the directory behind `root`, fit for reading whatever `root` is fit for.
fn reopen(root: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(root, ".", flags, Mode::empty())
}

fn flawed(entry: &Entry, flaw: Flaw) -> Error {
    Error::Entry { name: entry.name.escape_ascii().to_string(), flaw }
}

/// Turns a refusal of the file system into an error that names `entry`.
fn failed(entry: &Entry, doing: &'static str) -> impl Fn(Errno) -> Error {
    let name = || entry.name.escape_ascii().to_string();
    move |source| Error::Place { name: name(), doing, source: source.into() }
}
