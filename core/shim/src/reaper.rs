//! Processes: started so that nobody misses their end, adopted when somebody else started them, reaped when they are
//! nobody's.
//!
//! A shim is the parent of its containers' processes, though it starts none of them itself: the OCI runtime does, ends,
//! and the kernel hands its children to the nearest subreaper. Such a process may have ended before its id is known. So
//! whoever runs a runtime holds strays ([`Reaper::hold`]) meanwhile: what ended and is nobody's stays a zombie, whose id
//! nobody else gets, until it is adopted or nobody holds any more.

use std::{
    collections::HashMap,
    io,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its status; 128 and the signal's number when a signal ended it.
    pub status: u32,
    /// When it was seen.
    pub at: SystemTime,
}

impl Exit {
    fn of(status: WaitStatus) -> Self {
        let code = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code,
            (None, signal) => 128 + signal.unwrap_or_default(),
        };
        Self { status: u32::try_from(code).unwrap_or(255), at: SystemTime::now() }
    }
}

/// A process whose end is waited for. Dropping it lets the process run on; it is reaped all the same.
#[derive(Debug)]
pub struct Child {
    /// Its id.
    pub pid: u32,
    exit: oneshot::Receiver<Exit>,
}

impl Child {
    /// Waits for its end.
    pub async fn exit(self) -> Exit {
        // The sender goes with the reaper only, and then with the whole shim.
        self.exit.await.unwrap_or(Exit { status: 255, at: SystemTime::now() })
    }
}

/// Starts, adopts and reaps processes. Cheap to clone.
#[derive(Clone)]
pub struct Reaper(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: HashMap<Pid, oneshot::Sender<Exit>>,
    holders: usize,
}

/// While it lives, ended processes that are nobody's stay.
pub struct Hold(Reaper);

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.holders -= 1;
        state.sweep();
    }
}

impl Reaper {
    /// Makes this process a subreaper and follows its children. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start() -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let mut children = signal(SignalKind::child())?;
        let reaper = Self(Arc::default());
        let weak = Arc::downgrade(&reaper.0);
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                let Some(state) = weak.upgrade() else { return };
                Self(state).lock().sweep();
            }
        });
        Ok(reaper)
    }

    /// Starts a program. Its pipes, if any, are in the returned standard child; waiting is for [`Child`] alone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, std::process::Child)> {
        // Under the lock, so that its end is not swept before somebody waits for it.
        let mut state = self.lock();
        let started = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(started.id()).unwrap_or_default()).ok_or(io::ErrorKind::InvalidData)?;
        Ok((state.wait_for(pid), started))
    }

    /// Keeps ended processes that are nobody's until it is dropped.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.lock().holders += 1;
        Hold(self.clone())
    }

    /// Waits for a process that somebody else started and that is, or was, a child of this one. It must be held.
    ///
    /// # Errors
    /// When there is no such child.
    pub fn adopt(&self, pid: u32) -> io::Result<Child> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let mut state = self.lock();
        if state.waiting.contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match waitpid(Some(id), WaitOptions::NOHANG)? {
            None => Ok(state.wait_for(id)),
            Some((_, status)) => {
                let (sender, exit) = oneshot::channel();
                let _ = sender.send(Exit::of(status)); // received below
                Ok(Child { pid, exit })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait_for(&mut self, pid: Pid) -> Child {
        let (sender, exit) = oneshot::channel();
        self.waiting.insert(pid, sender);
        Child { pid: pid.as_raw_pid().unsigned_abs(), exit }
    }

    /// Reaps what has ended: those that somebody waits for, and nobody's unless they are held.
    fn sweep(&mut self) {
        let known: Vec<Pid> = self.waiting.keys().copied().collect();
        for pid in known {
            match waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(None) => {}
                Ok(Some((_, status))) => self.ended(pid, status),
                Err(error) => {
                    // Somebody else reaped it, which nobody here does.
                    tracing::error!(pid = pid.as_raw_pid(), %error, "the end of a process was missed");
                    self.waiting.remove(&pid);
                }
            }
        }
        while self.holders == 0
            && let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG)
        {
            self.ended(pid, status);
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        match self.waiting.remove(&pid) {
            Some(sender) => drop(sender.send(Exit::of(status))), // nobody waits any more
            None => tracing::debug!(pid = pid.as_raw_pid(), "a stray process ended"),
        }
    }
}
