//! Core scheduling: processes of one cookie share the hardware threads of a core only with each other.

#![expect(unsafe_code, reason = "no crate wraps this prctl")]

use std::io;

/// The cookie is for the whole process group, which the shim and its children inherit from.
const PROCESS_GROUP: libc::c_ulong = 2;

/// Gives this process's group a new cookie.
pub(crate) fn own_cookie() -> io::Result<()> {
    let (create, own): (libc::c_ulong, libc::c_ulong) = (libc::PR_SCHED_CORE_CREATE as _, 0);
    // SAFETY: this prctl takes numbers only; the last one is a pointer for another command, and zero here.
    let result = unsafe { libc::prctl(libc::PR_SCHED_CORE, create, own, PROCESS_GROUP, 0 as libc::c_ulong) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
