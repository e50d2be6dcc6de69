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
    todo: Vec<Todo>,
    buffer: Vec<u8>,
}

/// A directory of the upper tree that is still to be looked into.
struct Todo {
    dir: Rc<Directory>,
    /// Whether the lower tree has a directory of this name that shows through.
    compare: bool,
}

/// A directory on the way. Its entry is written before the first thing in it, or never.
struct Directory {
    path: Vec<u8>,
    above: Option<Rc<Directory>>,
    entry: Entry,
    written: Cell<bool>,
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
        });
        let todo = vec![Todo { dir: root, compare: lower.is_some() }];
        let latest = options.latest.map(latest);
        let (archive, mode) = (Writer::new(sink), options.upper);
        let (written, names, buffer) = (Written::default(), HashMap::new(), vec![0; 128 << 10]);
        Ok(Self { lower, upper, archive, mode, latest, written, names, todo, buffer })
    }

    pub(super) fn run(mut self) -> Result<Written, Error> {
        while let Some(todo) = self.todo.pop() {
            self.directory(&todo)?;
        }
        self.archive.finish().map_err(|source| write_failed(b"", source))?;
        Ok(self.written)
    }

    fn directory(&mut self, todo: &Todo) -> Result<(), Error> {
        let (dir, path) = (&todo.dir, &todo.dir.path[..]);
        let upper = dirs::open(self.upper.as_fd(), path).map_err(failed(path, "opening a directory"))?;
        let mut lower = match self.lower.as_ref().filter(|_| todo.compare) {
            Some(lower) => match dirs::open(lower.as_fd(), path) {
                Ok(lower) => Some(lower),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
                Err(error) => return Err(failed(path, "opening a directory")(error)),
            },
            None => None,
        };
        if self.mode == Upper::Changes && is_opaque(upper.as_fd()).map_err(failed(path, "reading its attributes"))? {
            lower = None;
            self.whiteout(dir, WHITEOUT_OPAQUE.to_vec())?;
        }
        let mut names = list(&upper).map_err(failed(path, "listing a directory"))?;
        if let Some(lower) = lower.as_ref().filter(|_| self.mode == Upper::Complete) {
            names.extend(list(lower).map_err(failed(path, "listing a directory"))?);
        }
        let first = self.todo.len();
        for name in names {
            self.name(dir, &upper, lower.as_ref(), &name)?;
        }
        self.todo[first..].reverse(); // the list is taken from its end
        Ok(())
    }

    /// Writes what one name has become.
    fn name(
        &mut self,
        dir: &Rc<Directory>,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        name: &[u8],
    ) -> Result<(), Error> {
        let path = dirs::join(&dir.path, name);
        let find = |dir| Inode::find(dir, name).map_err(failed(&path, "looking at a file"));
        let (old, new) = (lower.map(find).transpose()?.flatten(), find(upper)?);
        let Some(new) = new.filter(|new| self.mode == Upper::Complete || !new.is_whiteout()) else {
            return self.whiteout(dir, [WHITEOUT, name].concat());
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
            let compare = old.is_some_and(|old| old.is_directory());
            let inner = Rc::new(Directory { path, above: Some(Rc::clone(dir)), entry, written: Cell::new(false) });
            if !same {
                self.announce(&inner)?;
            }
            self.todo.push(Todo { dir: inner, compare });
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
    fn whiteout(&mut self, dir: &Rc<Directory>, name: Vec<u8>) -> Result<(), Error> {
        self.announce(dir)?;
        let mut entry = Entry::new(Kind::File, dirs::join(&dir.path, &name));
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
