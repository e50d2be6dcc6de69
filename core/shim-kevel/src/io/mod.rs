//! Standard streams of a process: where the daemon wants them, the pipes or the terminal that the process gets, and what
//! carries bytes between both.
//!
//! The process writes to pipes of the shim's and not to the daemon's FIFOs themselves: a daemon that is gone must neither
//! end nor starve it, and confined processes may use pipes that they inherit where files of the daemon's are denied.

mod console;
mod logger;
mod pump;
mod target;
mod uri;

use std::{
    os::fd::{AsFd, OwnedFd},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kevel_shim::Reaper;
use rustix::{
    fs::{Gid, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl},
    pipe::{PipeFlags, pipe_with},
};
use tokio::{
    io::unix::AsyncFd,
    net::unix::pipe::{Receiver, Sender},
    task::JoinHandle,
};

use crate::{
    device,
    error::{Error, Result},
};
pub(crate) use console::Socket;
use logger::Logger;
use target::{Input, Target};
use uri::Uri;

/// How long output may still come after the process has ended: something that it left may hold its pipes.
const DRAIN: Duration = Duration::from_secs(10);

/// Where the daemon wants the streams: paths of FIFOs or URIs; empty for none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// For whom streams are opened.
pub(crate) struct For<'a> {
    pub(crate) namespace: &'a str,
    /// The container, or the exec.
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a std::path::Path,
    /// The owner of the pipes.
    pub(crate) owner: (u32, u32),
    pub(crate) reaper: &'a Reaper,
}

/// The process's ends.
pub(crate) struct Ends {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

/// Streams that are open and not carried yet.
pub(crate) struct Opened {
    ends: Option<Ends>,
    socket: Option<Socket>,
    outputs: Vec<(Receiver, Target)>,
    input: Option<(Input, Sender)>,
    terminal: Option<(Option<Input>, Target)>,
    logger: Option<Logger>,
}

/// Streams that are carried.
pub(crate) struct Streams {
    outputs: Mutex<Vec<JoinHandle<()>>>,
    input: Option<JoinHandle<()>>,
    /// Our own writer of the daemon's FIFO, so that it has no end before the daemon says so.
    held: Mutex<Option<OwnedFd>>,
    console: Option<Arc<AsyncFd<OwnedFd>>>,
    logger: Mutex<Option<Logger>>,
}

/// Opens streams.
pub(crate) async fn open(wanted: &Wanted, who: &For<'_>) -> Result<Opened> {
    let mut opened =
        Opened { ends: None, socket: None, outputs: Vec::new(), input: None, terminal: None, logger: None };
    let uri = Uri::parse(&wanted.stdout).map_err(Error::Invalid)?;
    let is_logged = uri.as_ref().is_some_and(Uri::is_program);
    if wanted.terminal {
        let input = (!wanted.stdin.is_empty()).then(|| Input::open(&wanted.stdin)).transpose()?;
        let target = match &uri {
            Some(uri) if uri.is_program() => {
                let (logger, [stdout, _]) = Logger::start(uri, who).await?;
                opened.logger = Some(logger);
                Target::pipe(stdout)?
            }
            _ => Target::open(&wanted.stdout)?,
        };
        opened.terminal = Some((input, target));
        opened.socket = Some(Socket::new(who.bundle)?);
        return Ok(opened);
    }
    let mut ends = Ends { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() };
    if let Some(uri) = uri.filter(|_| is_logged) {
        let (logger, [stdout, stderr]) = Logger::start(&uri, who).await?;
        opened.logger = Some(logger);
        (ends.stdout, ends.stderr) = (stdout.into(), stderr.into());
    } else {
        let outputs = [(&wanted.stdout, &mut ends.stdout), (&wanted.stderr, &mut ends.stderr)];
        for (path, end) in outputs.into_iter().filter(|(path, _)| !path.is_empty()) {
            let target = Target::open(path)?;
            let (ours, its) = pipe(who.owner)?;
            opened.outputs.push((receiver(ours)?, target));
            *end = its.into();
        }
    }
    if !wanted.stdin.is_empty() {
        let input = Input::open(&wanted.stdin)?;
        let (its, ours) = pipe(who.owner)?;
        opened.input = Some((input, sender(ours)?));
        ends.stdin = its.into();
    }
    opened.ends = Some(ends);
    Ok(opened)
}

impl Opened {
    /// The process's ends, once.
    pub(crate) fn take_ends(&mut self) -> Option<Ends> {
        self.ends.take()
    }

    /// The socket on which a runtime hands over the terminal.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    /// Begins to carry; the runtime has made the process.
    pub(crate) async fn carry(mut self) -> Result<Streams> {
        let mut streams = Streams {
            outputs: Mutex::default(),
            input: None,
            held: Mutex::default(),
            console: None,
            logger: Mutex::new(self.logger.take()),
        };
        let mut outputs = Vec::new();
        if let Some((input, target)) = self.terminal.take()
            && let Some(socket) = self.socket.take()
        {
            let master = socket.receive().await?;
            let console = device::watch(master).map_err(|error| Error::system("waiting on a terminal", error))?;
            let console = Arc::new(console);
            outputs.push(tokio::spawn(pump::from_terminal(console.clone(), target)));
            if let Some(Input { fifo, held }) = input {
                streams.held = Mutex::new(Some(held));
                streams.input = Some(tokio::spawn(pump::to_terminal(fifo, console.clone())));
            }
            streams.console = Some(console);
        }
        for (from, to) in self.outputs.drain(..) {
            outputs.push(tokio::spawn(pump::output(from, to)));
        }
        if let Some((Input { fifo, held }, to)) = self.input.take() {
            streams.held = Mutex::new(Some(held));
            streams.input = Some(tokio::spawn(pump::input(fifo, to)));
        }
        streams.outputs = Mutex::new(outputs);
        Ok(streams)
    }

    /// Lets go of them; the process was not made.
    pub(crate) async fn abandon(mut self) {
        if let Some(logger) = self.logger.take() {
            drop(self);
            logger.end().await;
        }
    }
}

impl Streams {
    /// Ends standard input, as soon as the daemon's end is closed, too.
    pub(crate) fn close_input(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Changes the size of the terminal, if there is one.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<bool> {
        let Some(console) = &self.console else { return Ok(false) };
        let resized = device::resize(console.get_ref(), columns, rows);
        resized.map(|()| true).map_err(|error| Error::system("resizing the terminal", error))
    }

    /// Waits until all output has gone where it should; the process has ended.
    pub(crate) async fn finish(&self) {
        let outputs = std::mem::take(&mut *self.outputs.lock().unwrap_or_else(PoisonError::into_inner));
        let end = tokio::time::Instant::now() + DRAIN;
        for mut output in outputs {
            if tokio::time::timeout_at(end, &mut output).await.is_err() {
                tracing::warn!("a process left something that holds its output open; it is carried no longer");
                output.abort();
            }
        }
        let logger = self.logger.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(logger) = logger {
            logger.end().await;
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.input.iter().for_each(JoinHandle::abort);
        self.outputs.get_mut().unwrap_or_else(PoisonError::into_inner).iter().for_each(JoinHandle::abort);
    }
}

/// A pipe, for reading and for writing, that a user may open again by its name in `/proc`.
fn pipe((uid, gid): (u32, u32)) -> Result<(OwnedFd, OwnedFd)> {
    let failed = |error| Error::system("making a pipe", error);
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    if (uid, gid) != (0, 0) {
        fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
    }
    Ok((read, write))
}

fn receiver(pipe: OwnedFd) -> Result<Receiver> {
    let made = nonblocking(&pipe).and_then(|()| Receiver::from_owned_fd(pipe));
    made.map_err(|error| Error::system("reading a pipe", error))
}

fn sender(pipe: OwnedFd) -> Result<Sender> {
    let made = nonblocking(&pipe).and_then(|()| Sender::from_owned_fd(pipe));
    made.map_err(|error| Error::system("writing a pipe", error))
}

/// Has our end, and not the other one, never block.
fn nonblocking(descriptor: impl AsFd) -> std::io::Result<()> {
    let flags = fcntl_getfl(&descriptor)?;
    Ok(fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?)
}
