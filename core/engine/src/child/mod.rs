//! What runs in the container's process between clone and exec: a list of prepared steps. Nothing below this module
//! allocates, takes a lock or runs a destructor that matters; what a step needs was made before the clone.
//!
//! A step that fails is reported by its number, so that the parent can say which field of the spec it was for.

pub(crate) mod console;
pub(crate) mod hook;
mod identity;
mod mount;
pub(crate) mod path;
pub(crate) mod wire;

use std::{
    ffi::CString,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags},
};

pub(crate) use self::{
    hook::Hook,
    identity::{Identity, Sets},
    mount::{Controller, Device, FileSystem, Mount, Source},
    wire::{Fail, What},
};
use crate::sys::{self, Clone, MountAttr, SchedAttr, Strings};

/// The container's process, as a list of steps.
#[derive(Default)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
}

/// One step and the field of the spec that it is for.
pub(crate) struct Step {
    pub(crate) field: String,
    pub(crate) op: Op,
}

impl Program {
    pub(crate) fn push(&mut self, field: impl Into<String>, op: Op) {
        self.steps.push(Step { field: field.into(), op });
    }
}

/// What a step does.
pub(crate) enum Op {
    /// Moves this process into cgroups, by writing to the `cgroup.procs` that are open already.
    JoinCgroups(Vec<OwnedFd>),
    /// Joins a namespace.
    Setns {
        fd: RawFd,
        flags: u64,
    },
    /// Makes namespaces.
    Unshare(u64),
    /// Goes on in a child of the parent's, in new namespaces; this process ends.
    Fork(u64),
    /// Waits until the parent has written the id maps, then becomes root of the user namespace.
    Mapped,
    /// Becomes root of a user namespace that was joined.
    BecomeRoot,
    /// `timens_offsets`.
    TimeOffsets(Vec<u8>),
    /// A session of its own.
    Session,
    /// A keyring of its own.
    Keyring(CString),
    /// Loopback up.
    Loopback,
    Hostname(Vec<u8>),
    Domainname(Vec<u8>),
    /// Writes to a file below the host's proc.
    Proc {
        path: CString,
        text: Vec<u8>,
        optional: bool,
    },
    /// Propagation of everything in this mount namespace.
    Propagation(u32),
    /// Puts the root file system over `/`.
    AttachRoot,
    Mount(Box<Mount>),
    /// A read-only attribute that had to wait until mount points were made below.
    Seal {
        target: CString,
        attr: MountAttr,
    },
    Device(Box<Device>),
    Symlink {
        dir: CString,
        name: CString,
        target: CString,
        replace: bool,
    },
    /// Hooks of the runtime's, run by the parent; this process learns its pid.
    RuntimeHooks,
    Hook(Box<Hook>),
    Console {
        width: u16,
        height: u16,
        bind: bool,
    },
    Stdio {
        fds: [Option<RawFd>; 3],
        owner: Option<u32>,
    },
    ReadonlyPath(CString),
    MaskedPath {
        path: CString,
        label: Option<CString>,
    },
    Umount(CString),
    Pivot,
    Chroot,
    /// Attributes of `/`.
    RootAttr(MountAttr),
    RootPropagation(u32),
    Umask(u32),
    Personality(u64),
    Scheduler(SchedAttr),
    IoPriority(i32),
    Affinity(Vec<u64>),
    MemoryPolicy {
        mode: i32,
        nodes: Vec<u64>,
    },
    /// `/dev/null` of the container for standard streams that are the host's.
    ReopenNull,
    /// `HOME` of this uid, from the image's `/etc/passwd`.
    Home(u32),
    BoundingSet(Sets),
    Identity(Identity),
    /// Changes to the directory, unless that is done already; `early` may fail for want of rights, and is tried again.
    Chdir {
        cwd: CString,
        early: bool,
    },
    /// Makes a directory in the root file system.
    MakeDir(CString),
    Capabilities(Sets),
    NoNewPrivileges,
    Seccomp {
        program: Vec<libc::sock_filter>,
        flags: u64,
        listener: bool,
    },
    Label {
        attribute: CString,
        text: Vec<u8>,
    },
    /// Finds the program.
    Lookup(Vec<CString>),
    /// Tells the parent that all is prepared, and waits for the word to go on.
    Ready {
        fifo: Option<OwnedFd>,
    },
    Exec {
        argv: Strings,
        envp: Strings,
        preserve: u32,
        home: bool,
    },
}

impl Op {
    /// For error messages: what was being done.
    pub(crate) fn doing(&self) -> &'static str {
        match self {
            Self::JoinCgroups(_) => "join the cgroup",
            Self::Setns { .. } => "join the namespace",
            Self::Unshare(_) | Self::Fork(_) => "make namespaces",
            Self::Mapped | Self::BecomeRoot => "become root of the user namespace",
            Self::TimeOffsets(_) => "set the offsets",
            Self::Session => "make a session",
            Self::Keyring(_) => "make a keyring",
            Self::Loopback => "set the loopback device up",
            Self::Hostname(_) | Self::Domainname(_) => "set the name",
            Self::Proc { .. } => "write the value",
            Self::Propagation(_) | Self::RootPropagation(_) => "set the propagation",
            Self::AttachRoot => "attach the root file system",
            Self::Mount(_) => "mount",
            Self::Seal { .. } | Self::RootAttr(_) => "make read-only",
            Self::Device(_) => "make the device",
            Self::Symlink { .. } => "make the link",
            Self::RuntimeHooks | Self::Hook(_) => "run the hook",
            Self::Console { .. } => "make the terminal",
            Self::Stdio { .. } | Self::ReopenNull => "set the standard streams",
            Self::ReadonlyPath(_) => "make the path read-only",
            Self::MaskedPath { .. } => "mask the path",
            Self::Umount(_) => "unmount the host's file system",
            Self::Pivot | Self::Chroot => "change the root",
            Self::Umask(_) => "set the umask",
            Self::Personality(_) => "set the execution domain",
            Self::Scheduler(_) => "set the scheduler",
            Self::IoPriority(_) => "set the i/o priority",
            Self::Affinity(_) => "set the cpu affinity",
            Self::MemoryPolicy { .. } => "set the memory policy",
            Self::Home(_) => "find the home directory",
            Self::BoundingSet(_) | Self::Capabilities(_) => "set the capabilities",
            Self::Identity(_) => "become the user",
            Self::Chdir { .. } | Self::MakeDir(_) => "change to the directory",
            Self::NoNewPrivileges => "give up new privileges",
            Self::Seccomp { .. } => "install the filter",
            Self::Label { .. } => "set the label",
            Self::Lookup(_) => "find the program",
            Self::Ready { .. } => "wait for the start",
            Self::Exec { .. } => "run the program",
        }
    }
}

/// What the child knows while it runs.
pub(crate) struct Child<'a> {
    /// The child's end of the socket to the parent.
    pub(crate) socket: BorrowedFd<'a>,
    /// The host's `/proc`, known to be procfs.
    pub(crate) proc: BorrowedFd<'a>,
    /// The detached root file system; none where the mount namespace is another's.
    pub(crate) root: Option<BorrowedFd<'a>>,
    /// Its pid, as the parent sees it.
    pub(crate) pid: i32,
    /// `HOME=...`, once it is known.
    pub(crate) home: &'a mut [u8],
    /// Room for the environment with one more string.
    pub(crate) env: &'a mut [*const libc::c_char],
    /// The working directory is set.
    pub(crate) moved: bool,
    /// Which candidate for the program is the one.
    pub(crate) chosen: usize,
    /// The candidates.
    pub(crate) candidates: &'a [CString],
}

/// Runs the steps; never returns.
pub(crate) fn run<'a>(mut child: Child<'a>, program: &'a Program) -> ! {
    sys::reset_signals();
    // Modes are those that the steps say; the program's own umask comes later.
    let _the_hosts = rustix::process::umask(Mode::empty());
    for (number, step) in program.steps.iter().enumerate() {
        if let Err(fail) = child.step(&step.op) {
            wire::report(child.socket, number as u32, fail);
            sys::exit(1);
        }
    }
    sys::exit(1)
}

impl<'a> Child<'a> {
    fn root(&self) -> Result<BorrowedFd<'a>, Fail> {
        self.root.ok_or(Fail::from(Errno::INVAL))
    }

    fn step(&mut self, op: &'a Op) -> Result<(), Fail> {
        match op {
            Op::JoinCgroups(_)
            | Op::Setns { .. }
            | Op::Unshare(_)
            | Op::Fork(_)
            | Op::Mapped
            | Op::BecomeRoot
            | Op::TimeOffsets(_)
            | Op::Session
            | Op::Keyring(_)
            | Op::Loopback
            | Op::Hostname(_)
            | Op::Domainname(_)
            | Op::Proc { .. } => self.namespace_step(op),
            Op::Propagation(_)
            | Op::AttachRoot
            | Op::Mount(_)
            | Op::Seal { .. }
            | Op::Device(_)
            | Op::Symlink { .. }
            | Op::MakeDir(_)
            | Op::ReadonlyPath(_)
            | Op::MaskedPath { .. }
            | Op::Umount(_)
            | Op::Pivot
            | Op::Chroot
            | Op::RootAttr(_)
            | Op::RootPropagation(_) => self.mount_step(op),
            Op::RuntimeHooks => {
                wire::send(self.socket, wire::HOOKS, 0, 0)?;
                self.pid = wire::wait(self.socket)?;
                Ok(())
            }
            Op::Hook(hook) => hook.run(self.pid, None).map(drop),
            Op::Console { width, height, bind } => self.console(*width, *height, *bind),
            Op::Stdio { fds, owner } => console::stdio(fds, *owner),
            Op::ReopenNull => console::reopen_null(),
            _ => self.process_step(op),
        }
    }

    fn namespace_step(&mut self, op: &Op) -> Result<(), Fail> {
        match op {
            Op::JoinCgroups(procs) => {
                for file in procs {
                    write(file.as_fd(), b"0")?;
                }
            }
            Op::Setns { fd, flags } => sys::setns(*fd, *flags)?,
            Op::Unshare(flags) => sys::unshare(*flags)?,
            Op::Fork(flags) => match sys::clone(*flags | libc::CLONE_PARENT as u64, None)? {
                Clone::Child => {}
                Clone::Parent { pidfd, .. } => {
                    wire::send_fd(self.socket, wire::FORKED, pidfd.as_fd())?;
                    sys::exit(0);
                }
            },
            Op::Mapped => {
                wire::send(self.socket, wire::MAP, 0, 0)?;
                wire::wait(self.socket)?;
                identity::become_root()?;
            }
            Op::BecomeRoot => identity::become_root()?,
            Op::TimeOffsets(text) => self.write_proc(c"self/timens_offsets", text)?,
            Op::Session => rustix::process::setsid().map(drop)?,
            Op::Keyring(name) => match sys::new_keyring(name) {
                // A kernel without keyrings has none to share.
                Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP) => {}
                Err(err) => return Err(err.into()),
            },
            Op::Loopback => sys::loopback_up()?,
            Op::Hostname(name) => rustix::system::sethostname(name)?,
            Op::Domainname(name) => rustix::system::setdomainname(name)?,
            Op::Proc { path, text, optional } => match self.write_proc(path, text) {
                Err(Errno::NOENT) if *optional => {}
                answer => answer?,
            },
            _ => return Err(Errno::INVAL.into()),
        }
        Ok(())
    }

    fn process_step(&mut self, op: &'a Op) -> Result<(), Fail> {
        match op {
            Op::Umask(mask) => drop(rustix::process::umask(Mode::from_raw_mode(*mask))),
            Op::Personality(value) => sys::personality(*value)?,
            Op::Scheduler(attr) => sys::sched_setattr(attr)?,
            Op::IoPriority(value) => sys::ioprio_set(*value)?,
            Op::Affinity(mask) => sys::sched_setaffinity(mask)?,
            Op::MemoryPolicy { mode, nodes } => sys::set_mempolicy(*mode, nodes)?,
            Op::Home(uid) => identity::home(*uid, self.home),
            Op::BoundingSet(sets) => identity::bound(sets)?,
            Op::Identity(who) => self.identity(who)?,
            Op::Chdir { cwd, early } if !self.moved => match chdir(cwd) {
                Err(fail) if *early && fail == Errno::ACCESS.into() => {}
                answer => {
                    answer?;
                    self.moved = true;
                }
            },
            Op::Chdir { .. } => {}
            Op::Capabilities(sets) => identity::capabilities(sets)?,
            Op::NoNewPrivileges => rustix::thread::set_no_new_privs(true)?,
            Op::Seccomp { program, flags, listener } => {
                let answer = sys::seccomp(program, *flags)?;
                if *listener {
                    wire::send_fd(self.socket, wire::LISTENER, sys::own(answer).as_fd())?;
                }
            }
            Op::Label { attribute, text } => self.write_proc(attribute, text)?,
            Op::Lookup(candidates) => {
                self.candidates = candidates;
                self.chosen = identity::lookup(candidates)?;
            }
            Op::Ready { fifo } => self.ready(fifo.as_ref())?,
            Op::Exec { argv, envp, preserve, home } => return Err(self.exec(argv, envp, *preserve, *home)),
            _ => return Err(Errno::INVAL.into()),
        }
        Ok(())
    }

    /// Writes to a file of the host's proc, which no image has a hand in.
    fn write_proc(&self, path: &std::ffi::CStr, text: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(self.proc, path, flags, Mode::empty())?;
        write(file.as_fd(), text)
    }

    fn ready(&mut self, fifo: Option<&OwnedFd>) -> Result<(), Fail> {
        wire::send(self.socket, wire::READY, 0, 0)?;
        let Some(fifo) = fifo else {
            self.pid = wire::wait(self.socket)?;
            return Ok(());
        };
        let mut byte = [0_u8; 1];
        loop {
            match rustix::io::read(fifo, &mut byte) {
                Ok(1) => return Ok(()),
                Ok(_) => return Err(What::ParentGone.into()),
                Err(Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn exec(&mut self, argv: &Strings, envp: &Strings, preserve: u32, home: bool) -> Fail {
        if let Err(err) = sys::cloexec_from(3 + preserve) {
            return err.into();
        }
        let Some(program) = self.candidates.get(self.chosen) else { return Errno::NOENT.into() };
        let mut environment = envp.pointers();
        if home && let Ok(text) = std::ffi::CStr::from_bytes_until_nul(self.home) {
            environment = envp.with(text, self.env).unwrap_or(environment);
        }
        sys::execve(program, argv.pointers(), environment).into()
    }

    fn pivot(&mut self) -> Result<(), Fail> {
        let old = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::process::fchdir(self.root()?)?;
        rustix::process::pivot_root(c".", c".")?;
        // The old root now lies over the new one. It goes, and takes nothing of the host's with it.
        rustix::process::fchdir(&old)?;
        rustix::mount::mount_change(c".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")?;
        Ok(())
    }
}

/// Writes all of it at once, as files of the kernel want it.
pub(crate) fn write(file: BorrowedFd<'_>, text: &[u8]) -> Result<(), Errno> {
    loop {
        match rustix::io::write(file, text) {
            Err(Errno::INTR) => {}
            Ok(count) if count == text.len() => return Ok(()),
            Ok(_) => return Err(Errno::IO),
            Err(err) => return Err(err),
        }
    }
}

/// Changes the directory, and checks that it is one of the container's: a descriptor of a host's directory that somebody
/// left open would lead out by `/proc/self/fd`.
fn chdir(cwd: &std::ffi::CStr) -> Result<(), Fail> {
    rustix::process::chdir(cwd)?;
    let mut text = [0_u8; 4096];
    // The raw call says "(unreachable)" for what is outside.
    let read = sys::getcwd(&mut text)?;
    if text.get(..read).and_then(<[u8]>::first) != Some(&b'/') {
        return Err(What::Outside.into());
    }
    Ok(())
}
