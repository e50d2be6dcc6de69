//! The up flag of an interface in the calling thread's namespace, by the classic ioctls.
#![expect(unsafe_code, reason = "SIOCGIFFLAGS and SIOCSIFFLAGS have no safe wrapper")]

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Sets `IFF_UP`, unless it is set.
pub(super) fn up(name: &str) -> io::Result<()> {
    let socket = open()?;
    let mut request = request(name)?;
    let flags = flags(&socket, &mut request)?;
    if flags & up_flag() != 0 {
        return Ok(());
    }
    request.ifr_ifru.ifru_flags = flags | up_flag();
    // SAFETY: the request is an initialised ifreq that outlives the call, which only reads it.
    cvt(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
}

/// Whether `IFF_UP` is set.
pub(super) fn is_up(name: &str) -> io::Result<bool> {
    Ok(flags(&open()?, &mut request(name)?)? & up_flag() != 0)
}

fn flags(socket: &OwnedFd, request: &mut libc::ifreq) -> io::Result<libc::c_short> {
    // SAFETY: the request is an initialised ifreq that outlives the call, which writes the flags into it.
    cvt(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut *request) })?;
    // SAFETY: the kernel has just set this member of the union, and any bits are a valid short.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// The name with a terminating zero, everything else zero.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq consists of integers and unions of them, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name is too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// `IFF_UP` is 1 and fits.
fn up_flag() -> libc::c_short {
    libc::IFF_UP as libc::c_short
}

fn cvt(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
