//! Terminals as descriptors: waiting on them and changing their size. And programs that end with the shim.

#![expect(unsafe_code, reason = "descriptors and calls that no crate wraps safely")]

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use nix::sys::{prctl::set_pdeathsig, signal::Signal};
use tokio::io::unix::AsyncFd;

/// Waits on a descriptor, which must not block.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and it lives in the `AsyncFd`.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

/// Changes the size of a terminal.
pub(crate) fn resize(terminal: &OwnedFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the request reads a `winsize`, which lives beyond the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel end a program with the thread that starts it, which is the shim's only one: half a container that a
/// runtime goes on making would outlive the cleaning up.
pub(crate) fn end_with_us(command: &mut Command) {
    // SAFETY: between fork and exec, only one system call is made, which allocates nothing.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
}

/// Sends a signal by its number, of which the real-time ones have no names.
pub(crate) fn kill(pid: u32, number: u32) -> io::Result<()> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0).ok_or_else(invalid)?;
    let number = libc::c_int::try_from(number).map_err(|_| invalid())?;
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::kill(pid, number) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
