//! The socket that the process which answered `start` left to the one that serves.

#![expect(unsafe_code, reason = "an inherited descriptor is a number until somebody vouches for it")]

use std::{
    io,
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    net::sockopt::socket_acceptconn,
};

/// Takes a descriptor over, if it is a listening socket. To be called once, before anything else opens files.
pub(crate) fn listener(number: i32) -> io::Result<UnixListener> {
    if std::fs::read_link(format!("/proc/self/fd/{number}")).is_err() {
        return Err(io::Error::other(format!("descriptor {number} is not open; this is run by `start`")));
    }
    // SAFETY: the descriptor is open, and nobody else owns it: it was inherited, this is the first thing that the process
    // does, and this function is called once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    if !socket_acceptconn(&descriptor)? {
        return Err(io::Error::other(format!("descriptor {number} is no listening socket")));
    }
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?; // containers must not have it
    Ok(descriptor.into())
}
