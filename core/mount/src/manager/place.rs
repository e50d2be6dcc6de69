//! Where directories and images may be made: below some directories, whatever links are on the way.

use std::{
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, open, openat2},
    io::Errno,
};

use crate::{Error, Result};

/// How often a path is resolved again that changed meanwhile.
const TRIES: usize = 16;

/// The directory that `path` is to be in, which must exist, and the name in it. `field` says what asked.
pub(super) fn below(roots: &[PathBuf], field: &str, path: &str) -> Result<(OwnedFd, String)> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let found = roots.iter().find_map(|root| Some((root, Path::new(path).strip_prefix(root).ok()?)));
    let Some((root, inside)) = found.filter(|_| plain) else {
        return Err(Error::refused(field, format!("{path:?} is below none of {roots:?}")));
    };
    let Some(name) = inside.file_name().and_then(|name| name.to_str()) else {
        return Err(Error::refused(field, format!("{path:?} is one of {roots:?} itself")));
    };
    let doing = |error: Errno| Error::io(format!("opening the directory of {path:?}"), error);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, flags, Mode::empty()).map_err(doing)?;
    let Some(parent) = inside.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok((root, name.to_owned()));
    };
    let mut tries = 0;
    loop {
        match openat2(&root, parent, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            opened => return Ok((opened.map_err(doing)?, name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("/tmp", root.join("out")).unwrap();
        std::os::unix::fs::symlink("a", root.join("in")).unwrap();
        let roots = [root.clone()];
        let at = |path: &str| below(&roots, "options", &format!("{}{path}", root.display()));
        for (path, name) in [("/a", "a"), ("/a/b/c", "c"), ("/in/b/c", "c"), ("//a//x", "x")] {
            assert_eq!(at(path).unwrap().1, name, "{path}");
        }
        for path in ["", "/", "/out/x", "/a/../x", "/../x", "x/y", "/none/x"] {
            assert!(at(path).is_err(), "{path}");
        }
        assert!(below(&roots, "options", "a").is_err() && below(&roots, "options", "").is_err());
    }
}
