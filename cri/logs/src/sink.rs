//! Where one stream of a container goes: into the log, and to whoever is attached.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{net::unix::pipe, task};

use crate::{
    attach::Audience,
    line::{Cut, Cutter, Stream},
    log::{Batch, Log},
    spool::Spool,
};

/// What the operator configured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of the longest log line (`max_container_log_line_size`); longer ones are split. 0 is no limit but 16 MiB.
    pub max_line: usize,
    /// How long output waits for an attached client that does not read.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_line: 16 << 10, patience: Duration::from_secs(10) }
    }
}

/// The most that is read, written and handed on at once; also what a pipe holds.
const CHUNK: usize = 64 << 10;

/// So many follow each other on one thread while nobody is attached.
const ROUNDS: usize = 16;

/// One stream's way: from its pipe into the log and to clients, in order, until somebody says that it ended.
#[derive(Debug)]
pub struct Sink {
    stream: Stream,
    log: Log,
    audience: Audience,
    patience: Duration,
    cutter: Cutter,
    spooling: Spooling,
    read: Vec<u8>,
    lines: Vec<u8>,
}

/// Where the stream is kept until it is logged.
#[derive(Debug)]
enum Spooling {
    /// Nowhere: it is not logged, or there is no room.
    Off,
    /// There, once there is something.
    At(PathBuf),
    On(Box<Spool>),
}

impl Sink {
    pub(crate) fn new(
        stream: Stream,
        log: Log,
        audience: Audience,
        settings: &Settings,
        spool: Option<PathBuf>,
    ) -> Self {
        let cutter = Cutter::new(stream, settings.max_line);
        let spooling = spool.filter(|_| log.is_kept()).map_or(Spooling::Off, Spooling::At);
        let (read, lines) = (Vec::new(), Vec::new());
        Self { stream, log, audience, patience: settings.patience, cutter, spooling, read, lines }
    }

    /// Whether a daemon before this one read from the stream.
    pub(crate) fn has_past(&self) -> bool {
        matches!(&self.spooling, Spooling::At(path) if path.exists())
    }

    /// Finds out what of it is in the log. Blocks; of all streams of a log, before any goes on.
    pub(crate) fn settle(&mut self) {
        self.spool();
        if let Spooling::On(spool) = &mut self.spooling
            && let Err(error) = spool.settle(&self.log)
        {
            self.unspool(&error);
        }
    }

    /// Logs what the daemon before this one had read and not logged. Blocks.
    pub(crate) fn catch_up(&mut self, pipe: &pipe::Receiver) -> io::Result<()> {
        while matches!(&self.spooling, Spooling::On(spool) if spool.has_backlog()) {
            self.step(pipe)?;
        }
        Ok(())
    }

    /// Reads what the pipe has and logs it; answers how many bytes the last part had, which clients are to be shown. On a
    /// thread that may block.
    pub(crate) async fn take(mut self, pipe: Arc<pipe::Receiver>) -> (Option<Self>, io::Result<usize>) {
        if !self.log.is_kept() {
            let count = self.step(&pipe);
            return (Some(self), count);
        }
        let work = task::spawn_blocking(move || {
            let count = self.steps(&pipe);
            (Some(self), count)
        });
        work.await.unwrap_or_else(|error| (None, Err(io::Error::other(error))))
    }

    /// Goes on until there is a pause, or somebody attached who may have come before the last part.
    fn steps(&mut self, pipe: &pipe::Receiver) -> io::Result<usize> {
        self.spool();
        for _ in 1..ROUNDS {
            let count = self.step(pipe)?;
            if count == 0 || self.audience.wants(self.stream) {
                return Ok(count);
            }
        }
        self.step(pipe)
    }

    fn step(&mut self, pipe: &pipe::Receiver) -> io::Result<usize> {
        self.read.resize(CHUNK, 0);
        let count = self.fill(pipe)?;
        if count > 0 && self.log.is_kept() {
            let cut = self.cutter.feed(&self.read[..count], SystemTime::now(), &mut self.lines);
            self.append(cut);
        }
        Ok(count)
    }

    fn fill(&mut self, pipe: &pipe::Receiver) -> io::Result<usize> {
        if let Spooling::On(spool) = &mut self.spooling {
            match spool.read(pipe, &mut self.read) {
                Err(error) if is_of_a_pipe(&error) => return Err(error),
                Err(error) => self.unspool(&error),
                Ok(count) => return Ok(count),
            }
        }
        pipe.try_read(&mut self.read)
    }

    fn append(&mut self, cut: Cut) {
        let pending = self.cutter.pending();
        let mut batch = match &mut self.spooling {
            Spooling::On(spool) => Some(Batch { spool, pending, failed: None }),
            _ => None,
        };
        self.log.append(&mut self.lines, cut, batch.as_mut());
        if let Some(error) = batch.and_then(|batch| batch.failed) {
            self.unspool(&error);
        }
    }

    fn spool(&mut self) {
        if let Spooling::At(path) = &self.spooling {
            match Spool::open(path) {
                Ok(spool) => self.spooling = Spooling::On(Box::new(spool)),
                Err(error) => self.unspool(&error),
            }
        }
    }

    /// Without a spool output is logged as well, only not surely when the daemon is killed.
    fn unspool(&mut self, error: &io::Error) {
        tracing::warn!(log = ?self.log.path(), stream = ?self.stream, %error, "output is not kept for the next daemon");
        if let Spooling::On(spool) = std::mem::replace(&mut self.spooling, Spooling::Off) {
            spool.give_up();
        }
    }

    /// Hands what was read to each client.
    pub(crate) async fn show(&self, count: usize) {
        self.audience.send(self.stream, &self.read[..count], self.patience).await;
    }

    /// The stream ended: a line without an end is written as a piece.
    pub async fn finish(mut self) {
        let cut = self.cutter.finish(SystemTime::now(), &mut self.lines);
        if !self.lines.is_empty() {
            let _ = task::spawn_blocking(move || self.append(cut)).await; // nobody is left to tell
        }
    }

    /// Gives memory back while nothing comes; the start of a line stays.
    pub(crate) fn idle(&mut self) {
        (self.read, self.lines) = (Vec::new(), Vec::new());
        if let Spooling::On(spool) = &mut self.spooling
            && let Err(error) = spool.idle()
        {
            self.unspool(&error);
        }
    }
}

/// An error of an empty pipe is no error of the file that it was to be read into.
fn is_of_a_pipe(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
