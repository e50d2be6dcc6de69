//! Who the process is: user, groups, capabilities, home, and which program it runs.

use std::{ffi::CString, os::fd::AsFd as _};

use rustix::{
    fs::{self, Access, AtFlags, CWD, FileType, Mode, OFlags},
    io::Errno,
    thread::{CapabilitySet, CapabilitySets, Gid, Uid},
};

use super::{
    Child,
    wire::{Fail, What},
};

/// The user of the process.
pub(crate) struct Identity {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// `None` where the user namespace forbids to set them.
    pub(crate) groups: Option<Vec<Gid>>,
}

/// Sets of capabilities, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
    /// The number of the last capability that the kernel knows.
    pub(crate) last: u32,
}

/// Root in a user namespace.
pub(super) fn become_root() -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Drops what is not in the bounding set.
pub(super) fn bound(sets: &Sets) -> Result<(), Errno> {
    for number in 0..=sets.last {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if sets.bounding & (1 << number) == 0 && rustix::thread::capability_is_in_bounding_set(one)? {
            rustix::thread::remove_capability_from_bounding_set(one)?;
        }
    }
    Ok(())
}

pub(super) fn capabilities(sets: &Sets) -> Result<(), Errno> {
    rustix::thread::set_keep_capabilities(false)?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::from_bits_retain(sets.effective),
            permitted: CapabilitySet::from_bits_retain(sets.permitted),
            inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
        },
    )?;
    rustix::thread::clear_ambient_capability_set()?;
    for number in 0..=sets.last {
        if sets.ambient & (1 << number) != 0 {
            // Not both permitted and inheritable: the kernel has no such ambient capability, and the rest goes on.
            match rustix::thread::configure_capability_in_ambient_set(
                CapabilitySet::from_bits_retain(1 << number),
                true,
            ) {
                Ok(()) | Err(Errno::PERM) => {}
                Err(err) => return Err(err),
            }
        }
    }
    Ok(())
}

impl Child<'_> {
    pub(super) fn identity(&self, who: &Identity) -> Result<(), Fail> {
        rustix::thread::set_keep_capabilities(true)?;
        if let Some(groups) = &who.groups {
            rustix::thread::set_thread_groups(groups)?;
        }
        rustix::thread::set_thread_res_gid(who.gid, who.gid, who.gid)?;
        rustix::thread::set_thread_res_uid(who.uid, who.uid, who.uid)?;
        Ok(())
    }
}

/// The first candidate that can be run.
pub(super) fn lookup(candidates: &[CString]) -> Result<usize, Fail> {
    let mut denied = None;
    for (number, path) in candidates.iter().enumerate() {
        let stat = match fs::stat(path.as_c_str()) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(err) => {
                denied = Some(err);
                continue;
            }
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            denied = Some(Errno::ISDIR);
            continue;
        }
        match fs::accessat(CWD, path.as_c_str(), Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => return Ok(number),
            Err(err) => denied = Some(err),
        }
    }
    Err(denied.map_or(What::NoProgram.into(), Fail::from))
}

/// Writes `HOME=` and the home of `uid` into `into`: `/` if the image does not say another. The image's file is read with
/// bounds, and only if it is a file.
pub(super) fn home(uid: u32, into: &mut [u8]) {
    const KEY: &[u8] = b"HOME=";
    let mut found = [0_u8; 1024];
    let length = search(uid, &mut found).unwrap_or(0);
    let home: &[u8] = if length == 0 { b"/" } else { &found[..length] };
    if let Some(room) = into.get_mut(..KEY.len() + home.len() + 1) {
        room[..KEY.len()].copy_from_slice(KEY);
        room[KEY.len()..KEY.len() + home.len()].copy_from_slice(home);
        room[KEY.len() + home.len()] = 0;
    }
}

fn search(uid: u32, found: &mut [u8; 1024]) -> Option<usize> {
    const MOST: usize = 1 << 20;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = fs::open(c"/etc/passwd", flags, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fs::fstat(&file).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut line = [0_u8; 1024];
    let (mut length, mut too_long, mut total) = (0, false, 0);
    let mut chunk = [0_u8; 4096];
    loop {
        let read = rustix::io::read(file.as_fd(), &mut chunk).ok()?;
        total += read;
        for byte in chunk[..read].iter().chain(if read == 0 { &b"\n"[..] } else { &[] }) {
            if *byte != b'\n' {
                if length < line.len() {
                    line[length] = *byte;
                    length += 1;
                } else {
                    too_long = true;
                }
                continue;
            }
            if !too_long && let Some(home) = of_line(&line[..length], uid) {
                found[..home.len()].copy_from_slice(home);
                return Some(home.len());
            }
            (length, too_long) = (0, false);
        }
        if read == 0 || total > MOST {
            return None;
        }
    }
}

/// The sixth field, if the third is `uid`.
fn of_line(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|byte| *byte == b':');
    let number = fields.nth(2)?;
    let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
    let home = fields.nth(2)?;
    (number == uid && !home.contains(&0)).then_some(home)
}

/// The home that a line names, for tests of the parser.
#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn homes() {
        assert_eq!(of_line(b"root:x:0:0:root:/root:/bin/sh", 0), Some(&b"/root"[..]));
        assert_eq!(of_line(b"root:x:0:0:root:/root", 0), Some(&b"/root"[..]));
        assert_eq!(of_line(b"root:x:0:0:root:/root:/bin/sh", 1), None);
        assert_eq!(of_line(b"root:x:x:0:root:/root:/bin/sh", 0), None);
        assert_eq!(of_line(b"root:x:0", 0), None);
    }

    #[test]
    fn candidates() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| CString::new(dir.path().join(name).into_os_string().into_encoded_bytes()).unwrap();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        assert_eq!(lookup(&[path("none"), CString::new("/bin/sh").unwrap()]).unwrap(), 1);
        assert_eq!(lookup(&[path("none")]).unwrap_err().what, What::NoProgram);
        assert_eq!(lookup(&[path("plain"), path("none")]).unwrap_err(), Errno::ACCESS.into());
        assert_eq!(lookup(&[path(".")]).unwrap_err(), Errno::ISDIR.into());
    }

    #[test]
    fn a_home_is_always_a_string() {
        let mut into = [1_u8; 64];
        home(4_294_000_000, &mut into);
        assert_eq!(CStr::from_bytes_until_nul(&into).unwrap(), c"HOME=/");
    }
}
