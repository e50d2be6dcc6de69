//! System calls that neither rustix nor std wraps. Nothing here allocates: all of it may run between clone and exec.
#![expect(unsafe_code, reason = "raw system calls; each block says why it is sound")]

use std::{
    ffi::CStr,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use rustix::io::Errno;

/// What a raw call returned, as a result.
fn check(value: libc::c_long) -> Result<libc::c_long, Errno> {
    if value < 0 {
        // SAFETY: errno of this thread, set by the call that just failed.
        return Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }));
    }
    Ok(value)
}

/// Too large for the constant of libc.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where a clone went on.
pub(crate) enum Clone {
    /// In the new process.
    Child,
    /// In the old one: the new one's pid and pidfd.
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Starts a process that is a copy of this one (which has one thread, so the copy is whole), into a cgroup of version 2
/// if one is given.
pub(crate) fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Clone, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: plain integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the signal is the caller's own.
    args.exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no CLONE_FILES, so this is fork: the child has its own copy of everything, and of the only
    // thread there is.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) })?;
    if pid == 0 {
        return Ok(Clone::Child);
    }
    // SAFETY: the kernel put a descriptor of ours there.
    Ok(Clone::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Ends the process without running anything of ours or of libc's.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: never returns, touches nothing.
    unsafe { libc::_exit(code) }
}

/// New namespaces for this process.
pub(crate) fn unshare(flags: u64) -> Result<(), Errno> {
    // SAFETY: never called with CLONE_FILES, CLONE_FS or CLONE_THREAD; memory and descriptors are not touched.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

/// Joins namespaces, of a namespace file or of a pidfd.
pub(crate) fn setns(fd: RawFd, flags: u64) -> Result<(), Errno> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setns, fd, flags as libc::c_int) }).map(drop)
}

/// Attributes for `mount_setattr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountAttr {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

impl MountAttr {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes the mount that `fd` is the root of, and with `recursive` all below.
pub(crate) fn mount_setattr(fd: RawFd, attr: &MountAttr, recursive: bool) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty path and a struct of the size that is told.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, ptr::from_ref(attr), size_of::<MountAttr>())
    })
    .map(drop)
}

/// Marks every descriptor from `first` on to be closed by exec.
pub(crate) fn cloexec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: only marks; nobody's descriptor is closed under him.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Runs a program in place of this one; returns only the error.
pub(crate) fn execve(path: &CStr, argv: &[*const libc::c_char], envp: &[*const libc::c_char]) -> Errno {
    debug_assert!(argv.last().is_some_and(|last| last.is_null()) && envp.last().is_some_and(|last| last.is_null()));
    // SAFETY: both arrays end in null and point to strings that `Strings` keeps.
    let answer = unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    check(answer.into()).err().unwrap_or(Errno::NOEXEC)
}

/// Runs the program behind a descriptor in place of this one; returns only the error.
pub(crate) fn execveat(fd: RawFd, argv: &[*const libc::c_char], envp: &[*const libc::c_char]) -> Errno {
    // SAFETY: as in `execve`.
    let answer = unsafe {
        libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH)
    };
    check(answer).err().unwrap_or(Errno::NOEXEC)
}

/// C strings and the null-ended array of pointers to them that exec wants.
pub(crate) struct Strings {
    owned: Vec<std::ffi::CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    pub(crate) fn new(owned: Vec<std::ffi::CString>) -> Self {
        let pointers = owned.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Self { owned, pointers }
    }

    pub(crate) fn pointers(&self) -> &[*const libc::c_char] {
        debug_assert_eq!(self.pointers.len(), self.owned.len() + 1);
        &self.pointers
    }

    /// Copies the pointers, with one more string, into `into`; tells how many entries there are with the null.
    pub(crate) fn with<'a>(
        &self,
        extra: &CStr,
        into: &'a mut [*const libc::c_char],
    ) -> Option<&'a [*const libc::c_char]> {
        let count = self.owned.len();
        let slots = into.get_mut(..count + 2)?;
        slots[..count].copy_from_slice(&self.pointers[..count]);
        slots[count] = extra.as_ptr();
        slots[count + 1] = ptr::null();
        Some(slots)
    }

    /// How many slots `with` needs.
    pub(crate) fn slots(&self) -> usize {
        self.owned.len() + 2
    }
}

/// Installs a seccomp filter; with `LISTENER` among the flags the descriptor is returned.
pub(crate) fn seccomp(program: &[libc::sock_filter], flags: u64) -> Result<i64, Errno> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions and keeps a copy.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) })
}

/// Whether the kernel knows an action or flag of seccomp.
pub(crate) fn seccomp_knows(action: u32) -> bool {
    // SAFETY: the kernel reads one integer.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) }).is_ok()
}

pub(crate) fn ioprio_set(value: i32) -> Result<(), Errno> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// `struct sched_attr` of the kernel, its first version.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SchedAttr {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

pub(crate) fn sched_setattr(attr: &SchedAttr) -> Result<(), Errno> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: the kernel reads `size` bytes.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

pub(crate) fn sched_setaffinity(mask: &[u64]) -> Result<(), Errno> {
    // SAFETY: the kernel reads the slice.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

pub(crate) fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<(), Errno> {
    let pointer = if nodes.is_empty() { ptr::null() } else { nodes.as_ptr() };
    // The kernel takes one off the number of bits.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: the kernel reads `bits` bits, which the slice has.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}

pub(crate) fn personality(value: u64) -> Result<(), Errno> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_personality, value) }).map(drop)
}

/// A session keyring of the process's own, which others with its uid may search.
pub(crate) fn new_keyring(name: &CStr) -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    const DESCRIBE: i32 = 6;
    const SETPERM: i32 = 5;
    const SEARCH_BY_USER: u32 = 0x0008_0000;
    // SAFETY: the kernel reads the string.
    let ring = check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    let mut text = [0_u8; 256];
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    let read = check(unsafe { libc::syscall(libc::SYS_keyctl, DESCRIBE, ring, text.as_mut_ptr(), text.len()) })?;
    // "type;uid;gid;permissions;description"
    let text = &text[..(read as usize).min(text.len())];
    let permissions = text.split(|byte| *byte == b';').nth(3).and_then(|hex| std::str::from_utf8(hex).ok());
    let permissions = permissions.and_then(|hex| u32::from_str_radix(hex, 16).ok()).ok_or(Errno::INVAL)?;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, ring, permissions | SEARCH_BY_USER) }).map(drop)
}

/// Sets the loopback device of this network namespace up.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    // SAFETY: makes a descriptor or fails.
    let socket =
        check(unsafe { libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: nobody else has this new descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(socket as RawFd) };
    // SAFETY: plain integers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the request is an ifreq, as SIOCSIFFLAGS wants.
    check(unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
        .map(drop)
}

/// The size of a terminal.
pub(crate) fn set_window(terminal: BorrowedFd<'_>, height: u16, width: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize.
    check(unsafe { libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// All signals at their defaults, none blocked.
pub(crate) fn reset_signals() {
    /// What rt_sigaction takes on every architecture that we build for, with no handler and no flags.
    #[repr(C)]
    struct Action([u64; 4]);
    let none = Action([0; 4]);
    for signal in 1..=64 {
        // SAFETY: sets the default action; it fails for SIGKILL and SIGSTOP, which have it anyway.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const none, ptr::null::<Action>(), 8) };
    }
    let empty = 0_u64;
    // SAFETY: the kernel reads one set of 64 signals.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const empty, ptr::null::<u64>(), 8) };
}

/// The limits of another process, which may be in a user namespace where it could not raise them itself.
pub(crate) fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one rlimit64.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, ptr::null::<libc::rlimit64>()) })
        .map(drop)
}

/// `bpf(2)`.
pub(crate) fn bpf<T>(command: u32, attributes: &mut T) -> Result<i64, Errno> {
    // SAFETY: the kernel reads and writes the attributes, whose size it is told; pointers in them are the caller's.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<T>()) })
}

/// The working directory; tells its length with the NUL.
pub(crate) fn getcwd(into: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    check(unsafe { libc::syscall(libc::SYS_getcwd, into.as_mut_ptr(), into.len()) }).map(|length| length as usize)
}

/// A descriptor that a system call has just made.
pub(crate) fn own(fd: i64) -> OwnedFd {
    // SAFETY: callers pass what a call returned, before anybody else could have it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// A standard stream of this process.
pub(crate) fn stream(fd: RawFd) -> BorrowedFd<'static> {
    debug_assert!((0..3).contains(&fd));
    // SAFETY: nothing here closes the standard streams; if one is closed, calls on it say so.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Puts `from` where `to` is, to stay open over exec.
pub(crate) fn dup2(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: `to` is a standard stream, which nothing here owns.
    let answer = if from == to {
        // SAFETY: only clears the mark of a descriptor.
        unsafe { libc::fcntl(to, libc::F_SETFD, 0) }
    } else {
        // SAFETY: as above.
        unsafe { libc::dup2(from, to) }
    };
    check(answer.into()).map(drop)
}
