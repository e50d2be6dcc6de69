//! Mount options as words (`ro`, `rbind`, `lowerdir=/a:/b`) to the kernel's flags and data.

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::{Error, Result, idmap::Mapping, userns::IdRange};

/// How mounts below travel between peers, and whether the whole subtree is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation(pub(crate) MountPropagationFlags);

/// Parsed options of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) flags: MountFlags,
    pub(crate) bind: Option<Bind>,
    pub(crate) remount: bool,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) data: Vec<String>,
    pub(crate) mapping: Option<Mapping>,
}

/// What part of the source a bind takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    One,
    Tree,
}

/// What a word does to the flags.
enum Word {
    Set(MountFlags),
    Clear(MountFlags),
    Bind(Bind),
    Remount,
    Propagation(MountPropagationFlags),
    Nothing,
    Users(Vec<IdRange>),
    Groups(Vec<IdRange>),
    Refused(&'static str),
    Data,
}

fn word(option: &str) -> Word {
    use MountPropagationFlags as P;
    match option {
        "defaults" => Word::Nothing,
        "ro" => Word::Set(MountFlags::RDONLY),
        "rw" => Word::Clear(MountFlags::RDONLY),
        "nosuid" => Word::Set(MountFlags::NOSUID),
        "suid" => Word::Clear(MountFlags::NOSUID),
        "nodev" => Word::Set(MountFlags::NODEV),
        "dev" => Word::Clear(MountFlags::NODEV),
        "noexec" => Word::Set(MountFlags::NOEXEC),
        "exec" => Word::Clear(MountFlags::NOEXEC),
        "sync" => Word::Set(MountFlags::SYNCHRONOUS),
        "async" => Word::Clear(MountFlags::SYNCHRONOUS),
        "dirsync" => Word::Set(MountFlags::DIRSYNC),
        "noatime" => Word::Set(MountFlags::NOATIME),
        "atime" => Word::Clear(MountFlags::NOATIME),
        "nodiratime" => Word::Set(MountFlags::NODIRATIME),
        "diratime" => Word::Clear(MountFlags::NODIRATIME),
        "relatime" => Word::Set(MountFlags::RELATIME),
        "norelatime" => Word::Clear(MountFlags::RELATIME),
        "strictatime" => Word::Set(MountFlags::STRICTATIME),
        "nostrictatime" => Word::Clear(MountFlags::STRICTATIME),
        "mand" => Word::Set(MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        "nomand" => Word::Clear(MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        "bind" => Word::Bind(Bind::One),
        "rbind" => Word::Bind(Bind::Tree),
        "remount" => Word::Remount,
        "shared" => Word::Propagation(P::SHARED),
        "rshared" => Word::Propagation(P::SHARED | P::REC),
        "slave" => Word::Propagation(P::DOWNSTREAM),
        "rslave" => Word::Propagation(P::DOWNSTREAM | P::REC),
        "private" => Word::Propagation(P::PRIVATE),
        "rprivate" => Word::Propagation(P::PRIVATE | P::REC),
        "unbindable" => Word::Propagation(P::UNBINDABLE),
        "runbindable" => Word::Propagation(P::UNBINDABLE | P::REC),
        "loop" => Word::Refused("is for mounts of type loop, by a mount manager"),
        other if other.starts_with("X-containerd.") => Word::Refused("must be consumed before mounting"),
        other if other.starts_with("uidmap=") || other.starts_with("gidmap=") => match IdRange::parse(&other[7..]) {
            Some(ranges) if other.starts_with("uidmap=") => Word::Users(ranges),
            Some(ranges) => Word::Groups(ranges),
            None => Word::Refused("is not inside:outside:size"),
        },
        other if other.contains('\0') => Word::Refused("contains a zero byte"),
        _ => Word::Data,
    }
}

impl Options {
    /// Sorts each option into flags, propagation or data. The last of two that contradict each other wins.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self> {
        let (flags, data) = (MountFlags::empty(), vec![]);
        let mut parsed = Self { flags, bind: None, remount: false, propagation: None, data, mapping: None };
        for option in options.iter().map(AsRef::as_ref) {
            match word(option) {
                Word::Set(flag) => parsed.flags |= flag,
                Word::Clear(flag) => parsed.flags &= !flag,
                Word::Bind(bind) => parsed.bind = Some(bind),
                Word::Remount => parsed.remount = true,
                Word::Propagation(flag) => parsed.propagation = Some(Propagation(flag)),
                Word::Nothing => {}
                Word::Users(ranges) => parsed.mapping.get_or_insert_default().uids = ranges,
                Word::Groups(ranges) => parsed.mapping.get_or_insert_default().gids = ranges,
                Word::Refused(why) => return Err(Error::Option { option: option.to_owned(), why }),
                Word::Data => parsed.data.push(option.to_owned()),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sorts_words() {
        let options = Options::parse(&["rbind", "ro", "nosuid", "suid", "rslave", "mode=755", "size=1m"]).unwrap();
        assert_eq!(options.flags, MountFlags::RDONLY);
        assert_eq!(options.bind, Some(Bind::Tree));
        assert_eq!(
            options.propagation,
            Some(Propagation(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC))
        );
        assert_eq!(options.data, ["mode=755", "size=1m"]);
    }

    #[test]
    fn the_last_word_wins() {
        assert!(Options::parse(&["ro", "rw"]).unwrap().flags.is_empty());
        assert_eq!(Options::parse(&["rw", "ro"]).unwrap().flags, MountFlags::RDONLY);
    }

    #[test]
    fn refuses_by_name() {
        for bad in ["loop", "X-containerd.mkfs.fs=ext4", "uidmap=0:1", "gidmap=x", "a\0b"] {
            let error = Options::parse(&[bad]).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_loses_an_unknown_word(words in proptest::collection::vec("z[a-z=/:]{1,12}", 0..8)) {
            prop_assert_eq!(Options::parse(&words).unwrap().data, words);
        }
    }
}
