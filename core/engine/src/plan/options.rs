//! Options of mounts: which are flags of the mount, which of the propagation, and which are the file system's own.

use std::ffi::CString;

use crate::{
    error::{Error, Result},
    sys::MountAttr,
};

/// What a mount's options say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) bind: bool,
    pub(crate) recursive: bool,
    pub(crate) remount: bool,
    pub(crate) attr: MountAttr,
    pub(crate) all: MountAttr,
    pub(crate) propagation: Vec<(u64, bool)>,
    /// Use id maps; with those of below.
    pub(crate) idmap: Option<bool>,
    /// Passed to the file system.
    pub(crate) data: Vec<(CString, Option<CString>)>,
}

const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// Options of a mount: name, bits that are set, bits that are cleared. With an `r` before it, each holds for all below.
pub(crate) const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("relatime", libc::MOUNT_ATTR_RELATIME, ATIME),
    ("norelatime", 0, ATIME),
    ("noatime", libc::MOUNT_ATTR_NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Options of propagation; with an `r` before it, each holds for all below.
pub(crate) const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Options that every file system knows by this name.
pub(crate) const GENERAL: [&str; 4] = ["sync", "dirsync", "mand", "lazytime"];

/// Options that say what is so anyway.
pub(crate) const IDLE: [&str; 8] =
    ["defaults", "async", "nomand", "nolazytime", "loud", "silent", "iversion", "noiversion"];

/// The propagation of this name.
pub(crate) fn propagation(name: &str) -> Option<(u64, bool)> {
    let of = |name: &str| PROPAGATION.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag);
    of(name).map(|flag| (flag, false)).or_else(|| Some((of(name.strip_prefix('r')?)?, true)))
}

pub(crate) fn parse(options: &[String], field: &str) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    for option in options {
        one(&mut parsed, option, field)?;
    }
    Ok(parsed)
}

fn one(parsed: &mut Parsed, option: &str, field: &str) -> Result<()> {
    let attribute = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
    if let Some((_, set, clear)) = attribute(option) {
        merge(&mut parsed.attr, *set, *clear);
    } else if let Some((flag, recursive)) = propagation(option) {
        parsed.propagation.push((flag, recursive));
    } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(attribute) {
        merge(&mut parsed.all, *set, *clear);
    } else {
        match option {
            "bind" => parsed.bind = true,
            "rbind" => (parsed.bind, parsed.recursive) = (true, true),
            "remount" => parsed.remount = true,
            "idmap" => parsed.idmap = Some(false),
            "ridmap" => parsed.idmap = Some(true),
            "tmpcopyup" => return Err(Error::unsupported(field, "the option \"tmpcopyup\"")),
            name if IDLE.contains(&name) => {}
            "" => return Err(Error::invalid(field, "has an empty option")),
            other => {
                let text = |part: &str| CString::new(part).map_err(|_| Error::invalid(field, "has a NUL in it"));
                parsed.data.push(match other.split_once('=') {
                    Some((key, value)) => (text(key)?, Some(text(value)?)),
                    None => (text(other)?, None),
                });
            }
        }
    }
    Ok(())
}

/// The last word on a bit counts.
fn merge(attr: &mut MountAttr, set: u64, clear: u64) {
    attr.set = attr.set & !clear | set;
    attr.clear = attr.clear & !set | clear;
    // Those of access times are a number, not bits: it is cleared as a whole whenever it is set.
    if clear & ATIME != 0 {
        attr.clear |= ATIME;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Parsed {
        parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>(), "mounts[0].options").unwrap()
    }

    #[test]
    fn the_last_word_counts() {
        let both = parsed(&["ro", "nosuid", "rw"]);
        assert_eq!((both.attr.set, both.attr.clear), (libc::MOUNT_ATTR_NOSUID, libc::MOUNT_ATTR_RDONLY));
        let times = parsed(&["noatime", "strictatime"]);
        assert_eq!((times.attr.set, times.attr.clear), (libc::MOUNT_ATTR_STRICTATIME, ATIME));
    }

    #[test]
    fn kinds() {
        let all = parsed(&["rbind", "rro", "rslave", "private", "size=1k", "newinstance", "ridmap"]);
        assert!(all.bind && all.recursive && all.idmap == Some(true));
        assert_eq!((all.attr.set, all.all.set), (0, libc::MOUNT_ATTR_RDONLY));
        assert_eq!(all.propagation, [(libc::MS_SLAVE, true), (libc::MS_PRIVATE, false)]);
        assert_eq!(all.data, [(c"size".into(), Some(c"1k".into())), (c"newinstance".into(), None)]);
    }
}
