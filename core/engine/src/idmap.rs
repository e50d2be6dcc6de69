//! User namespaces that exist only for the sake of their id maps.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::sys::{self, Clone};

/// A user namespace with these maps.
pub(crate) fn namespace(uids: &str, gids: &str) -> io::Result<OwnedFd> {
    let (pid, pidfd) = match sys::clone(libc::CLONE_NEWUSER as u64, None)? {
        Clone::Child => loop {
            // Until the parent has what it wants; if the parent is killed, so is this.
            let _killed = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let _interrupted = rustix::thread::nanosleep(&rustix::fs::Timespec { tv_sec: 60, tv_nsec: 0 });
        },
        Clone::Parent { pid, pidfd } => (pid, pidfd),
    };
    let made = write_maps(pid, uids, gids).and_then(|()| fs::File::open(format!("/proc/{pid}/ns/user")));
    rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)?;
    rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))?;
    made.map(OwnedFd::from)
}

/// Writes the maps of a new user namespace.
pub(crate) fn write_maps(pid: i32, uids: &str, gids: &str) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), uids)?;
    fs::write(format!("/proc/{pid}/gid_map"), gids)
}
