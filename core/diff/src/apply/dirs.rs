//! Directories beneath the root, opened and kept open.
//!
//! Links are followed here and nowhere else: we read them and walk on, treating `/` and `..` at the root as the root, so
//! that a link means what it would mean to a process whose root this is. The kernel is always told not to follow any.

use std::{
    cell::Cell,
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{node, whiteout};
use crate::error::Flaw;

/// Directories kept open. An archive is written depth first, so a few are as good as many.
const OPEN: usize = 32;
/// Links followed on one path, as in the kernel.
const LINKS: usize = 40;

/// An open directory.
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
    /// Its path from the root, without links; empty for the root.
    pub(super) path: Vec<u8>,
}

/// What to do about a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it, like the one below if there is one.
    Create,
    /// Fail.
    Fail,
}

/// Why a directory could not be had.
pub(super) enum Failure {
    Flaw(Flaw),
    Io(&'static str, Errno),
}

pub(super) struct Dirs {
    root: Rc<Dir>,
    lowers: Vec<OwnedFd>,
    /// Bytes that a path may have once its links are followed.
    longest: usize,
    /// Open directories by the path that was asked for, and when that was.
    open: HashMap<Vec<u8>, (Rc<Dir>, u64)>,
    clock: u64,
    /// Directories made that the archive did not mention.
    made: Cell<u64>,
}

/// What is below a path in the lower layers.
enum Lower {
    Nothing,
    Directory(OwnedFd),
    Link(Vec<u8>),
}

impl Dirs {
    pub(super) fn new(root: OwnedFd, lowers: Vec<OwnedFd>, longest: u64) -> Self {
        // The kernel takes no longer paths, and directories are opened again by path.
        let longest = usize::try_from(longest).unwrap_or(usize::MAX).min(4095);
        let root = Rc::new(Dir { fd: root, path: Vec::new() });
        Self { root, lowers, longest, open: HashMap::new(), clock: 0, made: Cell::new(0) }
    }

    pub(super) fn root(&self) -> Rc<Dir> {
        Rc::clone(&self.root)
    }

    /// Directories made so far that the archive did not mention.
    pub(super) fn made(&self) -> u64 {
        self.made.get()
    }

    /// Forgets what is open, because a directory or a link was removed and paths may lead elsewhere now.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// Keeps a directory that was just made, because its files come next.
    pub(super) fn keep(&mut self, dir: Rc<Dir>) {
        self.remember(&dir.path.clone(), &dir);
    }

    /// The directory at `path`, which is clean. Links on the way are followed within the root.
    pub(super) fn get(&mut self, path: &[u8], missing: Missing) -> Result<Rc<Dir>, Failure> {
        if path.is_empty() {
            return Ok(self.root());
        }
        self.clock += 1;
        if let Some((dir, used)) = self.open.get_mut(path) {
            *used = self.clock;
            return Ok(Rc::clone(dir));
        }
        let (start, rest) = self.nearest(path);
        // Nearly always there are no links on the way, and the kernel can go it at once.
        let dir = match open(start.fd.as_fd(), rest) {
            Ok(fd) => Rc::new(Dir { fd, path: join(&start.path, rest) }),
            Err(_) => self.walk(start, rest, missing)?,
        };
        self.remember(path, &dir);
        Ok(dir)
    }

    /// The longest part of `path` that is open already, and what remains.
    fn nearest<'p>(&self, path: &'p [u8]) -> (Rc<Dir>, &'p [u8]) {
        let mut end = path.len();
        while let Some(slash) = path[..end].iter().rposition(|&byte| byte == b'/') {
            if let Some((dir, _)) = self.open.get(&path[..slash]) {
                return (Rc::clone(dir), &path[slash + 1..]);
            }
            end = slash;
        }
        (self.root(), path)
    }

    fn remember(&mut self, path: &[u8], dir: &Rc<Dir>) {
        if self.open.len() >= OPEN {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used).map(|(path, _)| path.clone());
            oldest.map(|path| self.open.remove(&path));
        }
        self.open.insert(path.to_vec(), (Rc::clone(dir), self.clock));
    }

    /// Goes from `start` along `rest`, one component at a time.
    fn walk(&self, start: Rc<Dir>, rest: &[u8], missing: Missing) -> Result<Rc<Dir>, Failure> {
        let (mut dir, mut links) = (start, 0);
        let mut todo: Vec<Vec<u8>> = components(rest).collect();
        while let Some(component) = todo.pop() {
            if component == b".." {
                dir = self.above(&dir)?;
                continue;
            }
            match self.step(&dir, &component, missing)? {
                Step::Into(next) => dir = next,
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Failure::Flaw(Flaw::Links));
                    }
                    if target.starts_with(b"/") {
                        dir = self.root();
                    }
                    todo.extend(components(&target));
                }
            }
        }
        Ok(dir)
    }

    /// One component from `dir`.
    fn step(&self, dir: &Dir, component: &[u8], missing: Missing) -> Result<Step, Failure> {
        let path = join(&dir.path, component);
        if path.len() > self.longest {
            return Err(Failure::Flaw(Flaw::Length));
        }
        match open(dir.fd.as_fd(), component) {
            Ok(fd) => Ok(Step::Into(Rc::new(Dir { fd, path }))),
            Err(Errno::NOENT) => match self.lower(&path)? {
                Lower::Link(target) => Ok(Step::Link(target)),
                _ if missing == Missing::Fail => Err(Failure::Io("looking up a directory", Errno::NOENT)),
                Lower::Directory(below) => self.create(dir, component, path, Some(below)),
                Lower::Nothing => self.create(dir, component, path, None),
            },
            Err(Errno::LOOP | Errno::NOTDIR) => match rustix::fs::readlinkat(&dir.fd, component, Vec::new()) {
                Ok(target) => Ok(Step::Link(target.into_bytes())),
                Err(_) => self.uncover(dir, component, path, missing),
            },
            Err(error) => Err(Failure::Io("opening a directory", error)),
        }
    }

    /// Makes a directory that the archive did not mention, like the one `below` it.
    fn create(&self, dir: &Dir, component: &[u8], path: Vec<u8>, below: Option<OwnedFd>) -> Result<Step, Failure> {
        let fail = |error| Failure::Io("making a directory that the archive did not mention", error);
        rustix::fs::mkdirat(&dir.fd, component, Mode::from_raw_mode(0o700)).map_err(fail)?;
        self.made.set(self.made.get() + 1);
        let fd = open(dir.fd.as_fd(), component).map_err(fail)?;
        match below {
            Some(below) => node::copy_directory(below.as_fd(), fd.as_fd()).map_err(fail)?,
            None => rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(fail)?,
        }
        Ok(Step::Into(Rc::new(Dir { fd, path })))
    }

    /// `component` is neither directory nor link. If the same layer's whiteout is in the way, the layer means a new
    /// directory that shows nothing of the old one; anything else is in the way for good.
    fn uncover(&self, dir: &Dir, component: &[u8], path: Vec<u8>, missing: Missing) -> Result<Step, Failure> {
        let fail = |error| Failure::Io("making a directory in the place of a whiteout", error);
        if missing == Missing::Fail || !whiteout::is_one(dir.fd.as_fd(), component).map_err(fail)? {
            return Err(Failure::Io("opening a directory", Errno::NOTDIR));
        }
        rustix::fs::unlinkat(&dir.fd, component, AtFlags::empty()).map_err(fail)?;
        let made = self.create(dir, component, path, None)?;
        if let Step::Into(made) = &made {
            whiteout::set_opaque(made.fd.as_fd()).map_err(fail)?;
        }
        Ok(made)
    }

    /// The directory above `dir`; the root is above itself.
    fn above(&self, dir: &Dir) -> Result<Rc<Dir>, Failure> {
        let Some(slash) = dir.path.iter().rposition(|&byte| byte == b'/') else { return Ok(self.root()) };
        let path = dir.path[..slash].to_vec();
        let fd = open(self.root.fd.as_fd(), &path).map_err(|error| Failure::Io("opening a directory", error))?;
        Ok(Rc::new(Dir { fd, path }))
    }

    /// What the topmost lower layer that has anything at `path` has there.
    fn lower(&self, path: &[u8]) -> Result<Lower, Failure> {
        let fail = |error| Failure::Io("looking into a lower layer", error);
        for lower in &self.lowers {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat2(lower, path, flags, Mode::empty(), strict()) {
                Ok(fd) => {
                    return match FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(fail)?.st_mode) {
                        FileType::Directory => Ok(Lower::Directory(fd)),
                        FileType::Symlink => {
                            let target = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(fail)?;
                            Ok(Lower::Link(target.into_bytes()))
                        }
                        _ => Ok(Lower::Nothing),
                    };
                }
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Lower::Nothing),
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(Lower::Nothing)
    }
}

enum Step {
    Into(Rc<Dir>),
    Link(Vec<u8>),
}

/// Opens the directory `path` beneath `dir` without following a link.
pub(crate) fn open(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(dir, path, flags, Mode::empty(), strict())
}

fn strict() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// The components of `path` in reverse, as a stack wants them.
fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let meaning = |component: &&[u8]| !component.is_empty() && *component != b".";
    path.rsplit(|&byte| byte == b'/').filter(meaning).map(<[u8]>::to_vec)
}
