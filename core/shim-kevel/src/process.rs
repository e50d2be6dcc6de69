//! A process of a container: the first one, or one that an exec added. Its state, its streams, its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kevel_proto::{containerd::v1::types::Status, shim::task::StateResponse};
use kevel_shim::Exit;
use tokio::sync::watch;

use crate::{
    device,
    error::{Error, Result},
    io::{Streams, Wanted},
};

/// A process.
pub(crate) struct Process {
    /// The exec's id; empty for the first process.
    pub(crate) exec_id: String,
    /// Where its streams go.
    pub(crate) wanted: Wanted,
    /// Held while it is made, started, deleted, and while its end is told: one after the other.
    pub(crate) turn: tokio::sync::Mutex<()>,
    now: Mutex<Now>,
    exit: watch::Sender<Option<Exit>>,
}

struct Now {
    status: Status,
    pid: u32,
    streams: Option<Arc<Streams>>,
}

impl Process {
    pub(crate) fn new(exec_id: String, wanted: Wanted) -> Self {
        let now = Now { status: Status::Created, pid: 0, streams: None };
        Self {
            exec_id,
            wanted,
            turn: tokio::sync::Mutex::default(),
            now: Mutex::new(now),
            exit: watch::Sender::default(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its state.
    pub(crate) fn status(&self) -> Status {
        self.now().status
    }

    /// Goes on to a state; one that has ended stays so.
    pub(crate) fn set_status(&self, status: Status) {
        let mut now = self.now();
        if now.status != Status::Stopped {
            now.status = status;
        }
    }

    /// Its id in the shim's process namespace; zero before there is one.
    pub(crate) fn pid(&self) -> u32 {
        self.now().pid
    }

    /// It has been made.
    pub(crate) fn made(&self, pid: u32, streams: Streams) {
        let mut now = self.now();
        (now.pid, now.streams) = (pid, Some(Arc::new(streams)));
    }

    /// It has ended; whoever waits is told.
    pub(crate) fn ended(&self, exit: Exit) {
        self.now().status = Status::Stopped;
        self.exit.send_replace(Some(exit));
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        // The sender lives as long as the process that is waited for.
        ended.unwrap_or(Exit { status: 255, at: std::time::SystemTime::now() })
    }

    /// Its streams, once it has been made.
    pub(crate) fn streams(&self) -> Option<Arc<Streams>> {
        self.now().streams.clone()
    }

    /// Waits until its output has gone where it should, and lets go of its streams.
    pub(crate) async fn finish_streams(&self) {
        let streams = self.now().streams.take();
        if let Some(streams) = streams {
            streams.finish().await;
        }
    }

    /// Ends standard input.
    pub(crate) fn close_input(&self) {
        if let Some(streams) = self.streams() {
            streams.close_input();
        }
    }

    /// Changes the size of its terminal.
    pub(crate) fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        let size = |name: &str, size: u32| {
            u16::try_from(size).map_err(|_| Error::Invalid(format!("{name}: {size} is more than a terminal has")))
        };
        let (columns, rows) = (size("width", columns)?, size("height", rows)?);
        match self.streams().map(|streams| streams.resize(columns, rows)).transpose()? {
            Some(true) => Ok(()),
            _ if self.wanted.terminal => Ok(()), // not made yet, or gone
            _ => Err(Error::State("the process has no terminal".to_owned())),
        }
    }

    /// Sends it a signal, which its exec alone gets.
    pub(crate) fn signal(&self, number: u32) -> Result<()> {
        let (status, pid) = {
            let now = self.now();
            (now.status, now.pid)
        };
        if status == Status::Stopped {
            return Err(Error::NotFound(format!("process {} has ended", self.exec_id)));
        }
        if pid == 0 {
            return Err(Error::State(format!("process {} is not started", self.exec_id)));
        }
        match device::kill(pid, number) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                Err(Error::NotFound(format!("process {} has ended", self.exec_id)))
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Err(Error::Invalid(format!("signal: {number} is none")))
            }
            result => result.map_err(|error| Error::system("sending a signal", error)),
        }
    }

    /// As the daemon is told.
    pub(crate) fn state(&self, id: &str, bundle: &str) -> StateResponse {
        let (exit, now) = (self.exit(), self.now());
        let Wanted { stdin, stdout, stderr, terminal } = self.wanted.clone();
        StateResponse {
            id: if self.exec_id.is_empty() { id.to_owned() } else { self.exec_id.clone() },
            bundle: bundle.to_owned(),
            pid: now.pid,
            status: now.status.into(),
            stdin,
            stdout,
            stderr,
            terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at.into()),
            exec_id: self.exec_id.clone(),
        }
    }
}
