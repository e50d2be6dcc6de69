//! Walking two trees side by side. One directory of each is open at a time, so depth costs nothing.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::io::Errno;

use super::{Options, Upper, Written, inode::Inode, latest};
use crate::{
    Error,
    apply::{WHITEOUT, WHITEOUT_OPAQUE, dirs, is_opaque},
    error::Flaw,
    tar::{Entry, Kind, Time, Writer},
};

pub(super) struct Walk<W: Write> {
    lower: Option<OwnedFd>,
    upper: OwnedFd,
    archive: Writer<W>,
    mode: Upper,
    latest: Option<Time>,
    written: Written,
    /// The first name of each file that has several, by device and inode.
    names: HashMap<(u64, u64), Vec<u8>>,
    /// What is still to be looked at, in reverse: depth first, because that is how others expect an archive.
    todo: Vec<Todo>,
    /// The directory looked at last, which is nearly always the one that is needed next.
    open: Option<Open>,
    buffer: Vec<u8>,
}

enum Todo {
    /// The content of a directory of the upper tree.
    Directory(Rc<Directory>),
    /// A name in one.
    Name(Rc<Directory>, Vec<u8>),
}

/// A directory in both trees.
struct Open {
    dir: Rc<Directory>,
    upper: OwnedFd,
    lower: Option<OwnedFd>,
}

/// A directory on the way. Its entry is written before the first thing in it, or never.
struct Directory {
    path: Vec<u8>,
    above: Option<Rc<Directory>>,
    entry: Entry,
    written: Cell<bool>,
    /// Whether the lower tree has a directory of this name that shows through.
    compare: Cell<bool>,
}

impl<W: Write> Walk<W> {
    pub(super) fn new(
        lower: Option<BorrowedFd<'_>>,
        upper: BorrowedFd<'_>,
        sink: W,
        options: &Options,
    ) -> Result<Self, Error> {
        let open = |fd| dirs::open(fd, b"").map_err(failed(b"", "opening the root of a tree"));
        let (lower, upper) = (lower.map(open).transpose()?, open(upper)?);
        let root = Rc::new(Directory {
            path: Vec::new(),
            above: None,
            entry: Entry::new(Kind::Directory, ""),
            written: Cell::new(true), // the root is there wherever a layer is applied
            compare: Cell::new(lower.is_some()),
        });
        let todo = vec![Todo::Directory(root)];
        let latest = options.latest.map(latest);
        let (archive, mode) = (Writer::new(sink), options.upper);
        let (written, names, buffer) = (Written::default(), HashMap::new(), vec![0; 128 << 10]);
        Ok(Self { lower, upper, archive, mode, latest, written, names, todo, open: None, buffer })
    }

    pub(super) fn run(mut self) -> Result<Written, Error> {
        while let Some(todo) = self.todo.pop() {
            match todo {
                Todo::Directory(dir) => self.directory(&dir)?,
                Todo::Name(dir, name) => {
                    let open = match self.open.take().filter(|open| Rc::ptr_eq(&open.dir, &dir)) {
                        Some(open) => open,
                        None => self.open(&dir)?,
                    };
                    self.name(&open, &name)?;
                    self.open = Some(open);
                }
            }
        }
        self.archive.finish().map_err(|source| write_failed(b"", source))?;
        Ok(self.written)
    }

    /// Opens a directory in both trees; in the lower one only if it shows through.
    fn open(&self, dir: &Rc<Directory>) -> Result<Open, Error> {
        let path = &dir.path[..];
        let upper = dirs::open(self.upper.as_fd(), path).map_err(failed(path, "opening a directory"))?;
        let lower = match self.lower.as_ref().filter(|_| dir.compare.get()) {
            Some(lower) => Some(dirs::open(lower.as_fd(), path).map_err(failed(path, "opening a directory"))?),
            None => None,
        };
        Ok(Open { dir: Rc::clone(dir), upper, lower })
    }

    /// Puts the names in a directory on the list.
    fn directory(&mut self, dir: &Rc<Directory>) -> Result<(), Error> {
        let path = &dir.path[..];
        let mut open = self.open(dir)?;
        let changes = self.mode == Upper::Changes;
        if changes && is_opaque(open.upper.as_fd()).map_err(failed(path, "reading its attributes"))? {
            open.lower = None;
            dir.compare.set(false);
            self.whiteout(dir, WHITEOUT_OPAQUE)?;
        }
        let mut names = list(&open.upper).map_err(failed(path, "listing a directory"))?;
        if let Some(lower) = open.lower.as_ref().filter(|_| !changes) {
            names.extend(list(lower).map_err(failed(path, "listing a directory"))?);
        }
        self.todo.extend(names.into_iter().rev().map(|name| Todo::Name(Rc::clone(dir), name)));
        self.open = Some(open);
        Ok(())
    }

    /// Writes what one name has become.
    fn name(&mut self, open: &Open, name: &[u8]) -> Result<(), Error> {
        let dir = &open.dir;
        let path = dirs::join(&dir.path, name);
        let find = |dir| Inode::find(dir, name).map_err(failed(&path, "looking at a file"));
        let (old, new) = (open.lower.as_ref().map(find).transpose()?.flatten(), find(&open.upper)?);
        let Some(new) = new.filter(|new| self.mode == Upper::Complete || !new.is_whiteout()) else {
            return self.whiteout(dir, &[WHITEOUT, name].concat());
        };
        if name.starts_with(WHITEOUT) {
            return Err(Error::Entry { name: path.escape_ascii().to_string(), flaw: Flaw::Reserved });
        }
        let same = match &old {
            // In a directory of changes a file is there because it changed; directories are also there on the way.
            Some(old) if self.mode == Upper::Complete || new.is_directory() => {
                new.same(old).map_err(|source| read_failed(&path, source))?
            }
            _ => false,
        };
        if self.mode == Upper::Changes && new.is_redirected().map_err(failed(&path, "reading its attributes"))? {
            return Err(Error::Entry { name: path.escape_ascii().to_string(), flaw: Flaw::Redirected });
        }
        let Some(kind) = new.kind() else {
            self.written.skipped += 1;
            return Ok(());
        };
        if kind == Kind::Directory {
            let entry = self.entry(&new, kind, &path)?;
            let compare = Cell::new(old.is_some_and(|old| old.is_directory()));
            let (above, written) = (Some(Rc::clone(dir)), Cell::new(false));
            let inner = Rc::new(Directory { path, above, entry, written, compare });
            if !same {
                self.announce(&inner)?;
            }
            self.todo.push(Todo::Directory(inner));
            return Ok(());
        }
        if same { Ok(()) } else { self.file(dir, &new, kind, path) }
    }

    /// Writes a changed file.
    fn file(&mut self, dir: &Rc<Directory>, new: &Inode<'_>, kind: Kind, path: Vec<u8>) -> Result<(), Error> {
        self.announce(dir)?;
        let mut entry = self.entry(new, kind, &path)?;
        if new.stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&(new.stat.st_dev, new.stat.st_ino)) {
                entry.link.clone_from(first);
                (entry.kind, entry.size) = (Kind::HardLink, 0);
                entry.xattrs.clear();
                return self.write(&entry);
            }
            self.names.insert((new.stat.st_dev, new.stat.st_ino), path.clone());
        }
        self.write(&entry)?;
        if kind != Kind::File || entry.size == 0 {
            return Ok(());
        }
        let file = new.open().map_err(failed(&path, "opening a file"))?;
        let mut file = file.take(entry.size);
        loop {
            let length = match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_failed(&path, error)),
            };
            self.archive.data(&self.buffer[..length]).map_err(|source| write_failed(&path, source))?;
        }
        if file.limit() > 0 {
            return Err(read_failed(&path, io::Error::other("the file shrank while it was read")));
        }
        self.written.size += entry.size;
        Ok(())
    }

    /// Writes an empty file called `name` in `dir`: the deletion of something.
    fn whiteout(&mut self, dir: &Rc<Directory>, name: &[u8]) -> Result<(), Error> {
        self.announce(dir)?;
        let mut entry = Entry::new(Kind::File, dirs::join(&dir.path, name));
        entry.mtime = self.latest.unwrap_or_default();
        self.write(&entry)
    }

    /// Writes the directories down to `dir` that have not been written.
    fn announce(&mut self, dir: &Rc<Directory>) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut next = Some(dir);
        while let Some(dir) = next.filter(|dir| !dir.written.get()) {
            missing.push(dir);
            next = dir.above.as_ref();
        }
        for dir in missing.into_iter().rev() {
            self.write(&dir.entry)?;
            dir.written.set(true);
        }
        Ok(())
    }

    fn entry(&self, inode: &Inode<'_>, kind: Kind, path: &[u8]) -> Result<Entry, Error> {
        let mut entry = inode.entry(kind, path).map_err(failed(path, "reading its attributes"))?;
        if let Some(latest) = self.latest {
            entry.mtime = entry.mtime.min(latest);
        }
        Ok(entry)
    }

    fn write(&mut self, entry: &Entry) -> Result<(), Error> {
        self.written.entries += 1;
        self.archive.entry(entry).map_err(|source| write_failed(&entry.name, source))
    }
}

/// The names in a directory.
fn list(dir: &OwnedFd) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let mut names = BTreeSet::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.insert(name.to_vec());
        }
    }
    Ok(names)
}

fn failed(path: &[u8], doing: &'static str) -> impl Fn(Errno) -> Error {
    move |source| Error::Place { name: path.escape_ascii().to_string(), doing, source: source.into() }
}

fn read_failed(path: &[u8], source: io::Error) -> Error {
    Error::Place { name: path.escape_ascii().to_string(), doing: "reading a file", source }
}

fn write_failed(path: &[u8], source: io::Error) -> Error {
    Error::Place { name: path.escape_ascii().to_string(), doing: "writing the layer", source }
}
