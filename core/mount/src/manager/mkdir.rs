//! `mkdir`: directories that a mount's other options count on.

use std::{ffi::CString, os::fd::AsFd, path::PathBuf};

use kevel_model::Mount;
use rustix::{
    fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat},
    io::Errno,
};

use super::place;
use crate::{Error, Result};

const PREFIX: &str = "X-containerd.mkdir.";
const MODE: u32 = 0o700;

/// A directory to be: path, mode and owner.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    path: &'a str,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
}

/// Makes the directories that options ask for, and takes those options away.
pub(super) fn transform(mount: &mut Mount, roots: &[PathBuf]) -> Result<()> {
    for option in mount.options.iter().filter(|option| option.starts_with(PREFIX)) {
        make(&parse(option)?, roots)?;
    }
    mount.options.retain(|option| !option.starts_with(PREFIX));
    Ok(())
}

/// `X-containerd.mkdir.path=PATH[:MODE[:UID:GID]]`.
fn parse(option: &str) -> Result<Wanted<'_>> {
    let refused = || Error::refused("options", format!("{option:?} is not {PREFIX}path=PATH[:MODE[:UID:GID]]"));
    let value = option.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix("path=")).ok_or_else(refused)?;
    let parts: Vec<&str> = value.split(':').collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = |text: &str| {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits(text) && *mode <= 0o777);
        mode.ok_or_else(refused)
    };
    let id = |text: &str| {
        let id = text.parse().ok().filter(|id| digits(text) && *id != u32::MAX);
        id.ok_or_else(refused)
    };
    match parts[..] {
        [path] => Ok(Wanted { path, mode: None, owner: None }),
        [path, bits] => Ok(Wanted { path, mode: Some(mode(bits)?), owner: None }),
        [path, bits, uid, gid] => Ok(Wanted { path, mode: Some(mode(bits)?), owner: Some((id(uid)?, id(gid)?)) }),
        _ => Err(refused()),
    }
}

/// One that exists gets the mode and the owner, if they are given.
fn make(wanted: &Wanted<'_>, roots: &[PathBuf]) -> Result<()> {
    let (parent, name) = place::below(roots, "options", wanted.path)?;
    let doing = |error: Errno| Error::io(format!("making directory {:?}", wanted.path), error);
    let name = CString::new(name).map_err(|_| Error::refused("options", "a path has a zero byte".to_owned()))?;
    let new = match mkdirat(&parent, &name, Mode::from_raw_mode(MODE)) {
        Err(Errno::EXIST) => false,
        made => made.map(|()| true).map_err(doing)?,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(&parent, &name, flags, Mode::empty()).map_err(doing)?;
    if let Some((uid, gid)) = wanted.owner {
        fchown(made.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(doing)?;
    }
    // Not by mkdirat alone: the process has a mask.
    match wanted.mode.or(new.then_some(MODE)) {
        Some(mode) => fchmod(&made, Mode::from_raw_mode(mode)).map_err(doing),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let check = |value: &str, mode, owner| {
            let option = format!("{PREFIX}path={value}");
            assert_eq!(parse(&option).unwrap(), Wanted { path: "/a", mode, owner }, "{value}");
        };
        check("/a", None, None);
        check("/a:755", Some(0o755), None);
        check("/a:0755:1:2", Some(0o755), Some((1, 2)));
        for bad in [
            "dir=/a",
            "path=/a:",
            "path=/a:8",
            "path=/a:+7",
            "path=/a:1777",
            "path=/a:755:1",
            "path=/a:7:-1:0",
            "path=/a:7:1:1:1",
        ] {
            assert!(parse(&format!("{PREFIX}{bad}")).is_err(), "{bad}");
        }
    }
}
