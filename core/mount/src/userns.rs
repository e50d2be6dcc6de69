//! User namespaces of their own: for id-mapped mounts, and for whoever needs one (with a network namespace that it owns)
//! before any process of the container exists.
//!
//! A process with threads can neither enter nor make a user namespace for itself, so a child is cloned into it that
//! does nothing but wait for its end. It ends with the value or with this process, whichever is first.
#![expect(unsafe_code, reason = "clone3(2) is in no safe wrapper")]

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::{Error, Result};

/// A range of ids of a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the namespace.
    pub inside: u32,
    /// The id that this is outside.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

impl IdRange {
    /// Reads ranges as snapshotters spell them in mount options: `inside:outside:size`, several joined by commas.
    pub fn parse(text: &str) -> Option<Vec<Self>> {
        text.split(',').map(Self::parse_one).collect()
    }

    fn parse_one(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|number| number.parse::<u32>().ok());
        let range = Self { inside: numbers.next()??, outside: numbers.next()??, size: numbers.next()?? };
        let last = |first: u32| first.checked_add(range.size.checked_sub(1)?);
        (numbers.next().is_none() && last(range.inside).is_some() && last(range.outside).is_some()).then_some(range)
    }

    /// The id outside of one inside; none when the range does not have it.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        let offset = inside.checked_sub(self.inside).filter(|offset| *offset < self.size)?;
        self.outside.checked_add(offset)
    }
}

/// A user namespace, held by a process of its own until this is dropped. What is mounted, bound or opened of it lives
/// on.
#[derive(Debug)]
pub struct UserNamespace {
    process: Pid,
    /// Whoever has the other end reads its end.
    _alive: OwnedFd,
}

/// What the child gets beside its user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// Nothing.
    Nothing,
    /// A network namespace that the user namespace owns.
    Network,
}

impl UserNamespace {
    /// Makes a namespace with these ranges. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When the kernel refuses; it wants CAP_SETUID and CAP_SETGID for ranges of other users.
    pub fn new(uids: &[IdRange], gids: &[IdRange], with: With) -> Result<Self> {
        let failed = |error: io::Error| Error::io("making a user namespace", error);
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map(|(read, write)| (write, read))
            .map_err(|error| failed(error.into()))?;
        let flags = match with {
            With::Nothing => libc::CLONE_NEWUSER,
            With::Network => libc::CLONE_NEWUSER | libc::CLONE_NEWNET,
        };
        let process = clone_waiting(flags, &theirs, &ours).map_err(failed)?;
        let made = Self { process, _alive: ours }; // from here on drop ends the child
        for (file, ranges) in [("uid_map", uids), ("gid_map", gids)] {
            let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.size);
            let path = made.proc(file);
            // The kernel takes a map in one write and only once.
            fs::write(&path, ranges.iter().map(line).collect::<String>())
                .map_err(|error| Error::io(format!("writing {path:?}"), error))?;
        }
        Ok(made)
    }

    fn proc(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.process.as_raw_nonzero()).into()
    }

    /// The namespace, while this lives: to open or to bind.
    pub fn user(&self) -> PathBuf {
        self.proc("ns/user")
    }

    /// The child's network namespace, while this lives.
    pub fn network(&self) -> PathBuf {
        self.proc("ns/net")
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.process, Signal::KILL); // it may be gone already
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitpid(Some(self.process), WaitOptions::empty()) {}
    }
}

/// A child that ends when every copy of `ours` is closed, at the latest with this process.
fn clone_waiting(flags: i32, theirs: &OwnedFd, ours: &OwnedFd) -> io::Result<Pid> {
    // struct clone_args of Linux 5.3: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    let mut arguments = [0_u64; 8];
    arguments[0] = u64::from(flags.unsigned_abs());
    arguments[4] = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: without CLONE_VM the child has a copy of everything, so no memory of ours changes under anybody. The
    // arguments live through the call. Between the call and _exit the child only makes system calls: it takes no lock
    // and allocates nothing, which another thread could have been in the middle of.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_mut_ptr(), size_of_val(&arguments)) };
    if answer != 0 {
        let process = i32::try_from(answer).ok().and_then(Pid::from_raw);
        return process.ok_or_else(io::Error::last_os_error);
    }
    // SAFETY: this is the child, whose copy of the descriptor is closed for nobody else, and which ends here.
    unsafe {
        libc::close(std::os::fd::AsRawFd::as_raw_fd(ours));
        let mut byte = [0_u8];
        while let Err(rustix::io::Errno::INTR) = rustix::io::read(theirs.as_fd(), &mut byte) {}
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges() {
        let range = IdRange { inside: 0, outside: 1000, size: 10 };
        assert_eq!(IdRange::parse("0:1000:10"), Some(vec![range]));
        assert_eq!(IdRange::parse("0:1000:10,20:3000:1").unwrap().len(), 2);
        for bad in ["", "0:1", "0:1:0", "0:1:2:3", "0:x:1", "0:4294967295:2", "4294967295:0:2", "0:1:1,", "-1:0:1"] {
            assert_eq!(IdRange::parse(bad), None, "{bad}");
        }
        assert_eq!((range.outside(0), range.outside(9), range.outside(10)), (Some(1000), Some(1009), None));
        assert_eq!(IdRange { inside: 5, ..range }.outside(4), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[0-9:,]{0,40}|\\PC{0,20}") {
            let _ = IdRange::parse(&text);
        }
    }

    #[test]
    fn the_namespace_has_the_ranges_and_ends_with_the_value() {
        if !rustix::process::getuid().is_root() {
            eprintln!("skipped: mapping other users' ids needs root");
            return;
        }
        let range = [IdRange { inside: 0, outside: 70000, size: 65536 }];
        let made = UserNamespace::new(&range, &range, With::Network).unwrap();
        let map = fs::read_to_string(made.proc("gid_map")).unwrap();
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "70000", "65536"]);
        let (own, other) = (fs::read_link("/proc/self/ns/net").unwrap(), fs::read_link(made.network()).unwrap());
        assert_ne!(own, other);
        let kept = fs::File::open(made.user()).unwrap();
        let gone = made.proc("ns");
        drop(made);
        assert!(!gone.exists(), "the process has ended");
        drop(kept);
        let twice = [IdRange { inside: 0, outside: 1, size: 2 }, IdRange { inside: 1, outside: 9, size: 2 }];
        assert!(UserNamespace::new(&twice, &range, With::Nothing).is_err(), "ranges that overlap");
    }
}
