//! Paths of the image, resolved beneath its root whatever links it has. Nothing here allocates.

use std::{
    ffi::CStr,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags},
};

const MAX_LINKS: usize = 40;
const MAX_PATH: usize = 4096;

/// What is made where a path ends and nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Dir,
    File,
}

/// Opens what is there, following links as if `root` were `/`.
pub(crate) fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    resolve(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn resolve(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    loop {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            // Somebody renamed or mounted meanwhile, and the kernel can't tell whether it mattered.
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
}

/// Opens what is there, or makes it, with the directories that lead to it.
pub(crate) fn open_or_make(root: BorrowedFd<'_>, path: &CStr, last: Last) -> Result<OwnedFd, Errno> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => make(root, path.to_bytes(), last),
        answer => answer,
    }
}

/// As [`open_or_make`], for a file system that must not come to lie where a link leads.
pub(crate) fn open_or_make_exact(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match resolve(root, path, OFlags::PATH, how) {
        Err(Errno::NOENT) => {
            make(root, path.to_bytes(), Last::Dir)?;
            resolve(root, path, OFlags::PATH, how)
        }
        answer => answer,
    }
}

/// A path with room for a NUL, on the stack.
struct Text {
    bytes: [u8; MAX_PATH],
    len: usize,
}

impl Text {
    fn new(text: &[u8]) -> Result<Self, Errno> {
        let mut made = Self { bytes: [0; MAX_PATH], len: 0 };
        made.append(text)?;
        Ok(made)
    }

    fn append(&mut self, text: &[u8]) -> Result<(), Errno> {
        // One byte stays free for the NUL.
        let room = self.bytes.get_mut(self.len..MAX_PATH - 1).ok_or(Errno::NAMETOOLONG)?;
        room.get_mut(..text.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(text);
        self.len += text.len();
        self.bytes[self.len] = 0;
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.len = len;
        self.bytes[len] = 0;
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn c(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::INVAL)
    }

    /// Takes off the last component.
    fn pop(&mut self) {
        let end = self.text().iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.truncate(end);
    }
}

/// The first component of `path` and where the rest begins.
fn component(path: &[u8]) -> Option<(&[u8], usize)> {
    let start = path.iter().position(|byte| *byte != b'/')?;
    let end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |length| start + length);
    Some((&path[start..end], end))
}

/// Goes down component by component. A link is read and followed by us, so that a dangling one leads to what is made, and
/// each step is checked by the kernel to contain no link, so that nobody can swap one in.
fn make(root: BorrowedFd<'_>, path: &[u8], last: Last) -> Result<OwnedFd, Errno> {
    let mut todo = Text::new(path)?;
    let mut done = Text::new(b"")?;
    let mut links = 0;
    loop {
        let Some((name, rest)) = component(todo.text()) else {
            return here(root, &done, OFlags::PATH);
        };
        let mut copy = Text::new(name)?;
        let ends = component(&todo.text()[rest..]).is_none();
        let mut after = Text::new(&todo.text()[rest..])?;
        match name {
            b"." => {}
            b".." => done.pop(),
            _ => {
                done.append(b"/")?;
                done.append(name)?;
                let found = match here(root, &done, OFlags::PATH | OFlags::NOFOLLOW) {
                    Err(Errno::NOENT) => put(root, &done, copy.c()?, if ends { last } else { Last::Dir })?,
                    answer => answer?,
                };
                if FileType::from_raw_mode(fs::fstat(&found)?.st_mode) == FileType::Symlink {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    done.pop();
                    copy = link(&found)?;
                    if copy.text().first() == Some(&b'/') {
                        done.truncate(0);
                    }
                    copy.append(b"/")?;
                    copy.append(after.text())?;
                    after = copy;
                } else if ends {
                    return Ok(found);
                }
            }
        }
        todo = after;
    }
}

fn here(root: BorrowedFd<'_>, done: &Text, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if done.len == 0 { c"." } else { done.c()? };
    // With O_NOFOLLOW and O_PATH a link at the end is opened as itself, which NO_SYMLINKS would refuse.
    if !flags.contains(OFlags::NOFOLLOW) {
        return resolve(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS);
    }
    let mut parent = Text::new(done.text())?;
    parent.pop();
    let parent = here(root, &parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let start = done.text().iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let name = CStr::from_bytes_until_nul(&done.bytes[start..]).map_err(|_| Errno::INVAL)?;
    // A single name, which is neither a link that is followed nor "..": it can't lead out.
    fs::openat(&parent, name, flags | OFlags::CLOEXEC, Mode::empty())
}

fn put(root: BorrowedFd<'_>, done: &Text, name: &CStr, last: Last) -> Result<OwnedFd, Errno> {
    let mut parent = Text::new(done.text())?;
    parent.pop();
    let parent = here(root, &parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let made = match last {
        Last::Dir => fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)),
        Last::File => fs::mknodat(&parent, name, FileType::RegularFile, Mode::from_raw_mode(0o755), 0),
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => here(root, done, OFlags::PATH | OFlags::NOFOLLOW),
        Err(err) => Err(err),
    }
}

fn link(found: &OwnedFd) -> Result<Text, Errno> {
    let mut text = Text::new(b"")?;
    let read = fs::readlinkat_raw(found, c"", &mut text.bytes[..MAX_PATH - 1])?;
    if read == 0 || read >= MAX_PATH - 1 {
        return Err(Errno::NAMETOOLONG);
    }
    text.truncate(read);
    Ok(text)
}

/// Attaches the detached mount `tree` on top of `target`.
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", target, c"", flags)
}

/// A detached copy of the mount at `fd` (or at a path of the process's own root).
pub(crate) fn tree(fd: Option<BorrowedFd<'_>>, path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(fd.unwrap_or(CWD), path, flags)
}

/// Whether `fd` is a character device of these numbers.
pub(crate) fn is_char_device(fd: BorrowedFd<'_>, major: u32, minor: u32) -> Result<bool, Errno> {
    let stat = fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == fs::makedev(major, minor))
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::AsFd as _, unix::fs::symlink},
        path::Path,
    };

    use super::*;

    fn place(root: &Path, path: &CStr, last: Last) -> Result<std::path::PathBuf, Errno> {
        let fd = std::fs::File::open(root).unwrap();
        let made = open_or_make(fd.as_fd(), path, last)?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&made))).unwrap();
        Ok(path.strip_prefix(root).expect("escaped").to_owned())
    }

    #[test]
    fn links_lead_nowhere_but_beneath_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        symlink("/run", root.join("var")).unwrap();
        symlink("../../../outside", root.join("a/up")).unwrap();
        symlink("/etc/there", root.join("file")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for (path, last, expected) in [
            (c"/x/y/z", Last::Dir, "x/y/z"),
            (c"/x/y/f", Last::File, "x/y/f"),
            (c"/var/lock/me", Last::Dir, "run/lock/me"),
            (c"/a/up/in", Last::Dir, "outside/in"),
            (c"/file", Last::File, "etc/there"),
            (c"../../../top", Last::Dir, "top"),
            (c"/a/./b/../c", Last::Dir, "a/c"),
            (c"/", Last::Dir, ""),
        ] {
            assert_eq!(place(&root, path, last).unwrap(), Path::new(expected), "{path:?}");
            assert_eq!(place(&root, path, last).unwrap(), Path::new(expected), "{path:?}, again");
        }
        assert!(root.join("x/y/f").is_file() && root.join("etc/there").is_file() && root.join("outside/in").is_dir());
        assert_eq!(std::fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        assert_eq!(place(&root, c"/loop/a", Last::Dir).unwrap_err(), Errno::LOOP);
        assert_eq!(place(&root, c"/file/below", Last::Dir).unwrap_err(), Errno::NOTDIR);
    }

    #[test]
    fn exact_targets_have_no_links() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/elsewhere", dir.path().join("proc")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(open_or_make_exact(root.as_fd(), c"/proc").unwrap_err(), Errno::LOOP);
        assert!(open_or_make_exact(root.as_fd(), c"/sys/deep").is_ok());
    }
}
