//! Runs a hook. The child runs its own ones by this, and so does the parent: between clone and exec nothing here allocates.

use std::{
    ffi::CString,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, Mode, OFlags, SeekFrom},
    io::Errno,
    process::{Signal, WaitId, WaitIdOptions},
};

use super::wire::{Fail, What};
use crate::sys::{self, Clone, Strings};

/// A hook, ready to run.
pub(crate) struct Hook {
    pub(crate) path: CString,
    pub(crate) argv: Strings,
    pub(crate) envp: Strings,
    pub(crate) cwd: Option<CString>,
    /// Seconds; `None` is for ever.
    pub(crate) timeout: Option<i64>,
    /// The state as JSON, up to the pid and from there on.
    pub(crate) state: (Vec<u8>, Vec<u8>),
}

impl Hook {
    /// Runs it to its end. What it prints is in the memory file that is returned with a failure.
    pub(crate) fn run(&self, pid: i32, output: Option<BorrowedFd<'_>>) -> Result<(), Fail> {
        let state = self.state(pid)?;
        let pidfd = match sys::clone(0, None)? {
            Clone::Child => self.exec(&state, output),
            Clone::Parent { pidfd, .. } => pidfd,
        };
        self.wait(&pidfd)
    }

    fn state(&self, pid: i32) -> Result<OwnedFd, Errno> {
        let file = rustix::fs::memfd_create(c"state", MemfdFlags::CLOEXEC)?;
        let mut digits = [0_u8; 12];
        let mut at = digits.len();
        let mut rest = pid.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        for part in [&self.state.0[..], &digits[at..], &self.state.1[..]] {
            super::write(file.as_fd(), part)?;
        }
        rustix::fs::seek(&file, SeekFrom::Start(0))?;
        Ok(file)
    }

    fn exec(&self, state: &OwnedFd, output: Option<BorrowedFd<'_>>) -> ! {
        const NOT_RUN: i32 = 127;
        sys::reset_signals();
        let ready = || -> Result<(), Errno> {
            let null = rustix::fs::open(c"/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            let output = match (output, &null) {
                (Some(output), _) => output.as_raw_fd(),
                (None, Ok(null)) => null.as_raw_fd(),
                (None, Err(err)) => return Err(*err),
            };
            // Neither is a standard stream: those are open in every process that the engine runs in.
            sys::dup2(state.as_raw_fd(), 0)?;
            sys::dup2(output, 1)?;
            sys::dup2(output, 2)?;
            if let Some(cwd) = &self.cwd {
                rustix::process::chdir(cwd.as_c_str())?;
            }
            sys::cloexec_from(3)
        };
        if ready().is_ok() {
            sys::execve(&self.path, self.argv.pointers(), self.envp.pointers());
        }
        sys::exit(NOT_RUN)
    }

    fn wait(&self, pidfd: &OwnedFd) -> Result<(), Fail> {
        let limit = self.timeout.map(|seconds| Timespec { tv_sec: seconds, tv_nsec: 0 });
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        let in_time = loop {
            match poll(&mut fds, limit.as_ref()) {
                Err(Errno::INTR) => {}
                answer => break answer? > 0,
            }
        };
        if !in_time {
            rustix::process::pidfd_send_signal(pidfd, Signal::KILL)?;
        }
        let status = loop {
            match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                answer => break answer?,
            }
        };
        if !in_time {
            return Err(What::HookTimeout.into());
        }
        match status.map(|status| (status.exit_status(), status.terminating_signal())) {
            Some((Some(0), _)) => Ok(()),
            Some((Some(code), _)) => Err(Fail { what: What::HookCode, number: code }),
            Some((None, Some(signal))) => Err(Fail { what: What::HookSignal, number: signal }),
            _ => Err(Errno::CHILD.into()),
        }
    }
}
