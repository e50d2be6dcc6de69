//! Where one stream of a container goes: into the log, and to whoever is attached.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{net::unix::pipe, task};

use crate::{
    attach::Audience,
    line::{Cutter, Stream},
    log::Log,
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

/// One stream's way: from its pipe into the log and to clients, in order, until somebody says that it ended.
#[derive(Debug)]
pub struct Sink {
    stream: Stream,
    log: Log,
    audience: Audience,
    patience: Duration,
    cutter: Cutter,
    read: Vec<u8>,
    lines: Vec<u8>,
}

impl Sink {
    pub(crate) fn new(stream: Stream, log: Log, audience: Audience, settings: &Settings) -> Self {
        let cutter = Cutter::new(stream, settings.max_line);
        Self { stream, log, audience, patience: settings.patience, cutter, read: Vec::new(), lines: Vec::new() }
    }

    /// Reads what the pipe has and logs it; answers how many bytes that were. What was read and is in no log yet is lost
    /// when the daemon is killed, so that one follows the other at once, on a thread that may block.
    pub(crate) async fn take(mut self, pipe: Arc<pipe::Receiver>) -> (Option<Self>, io::Result<usize>) {
        if !self.log.is_kept() {
            let count = self.read_and_log(&pipe);
            return (Some(self), count);
        }
        let work = task::spawn_blocking(move || {
            let count = self.read_and_log(&pipe);
            (Some(self), count)
        });
        work.await.unwrap_or_else(|error| (None, Err(io::Error::other(error))))
    }

    fn read_and_log(&mut self, pipe: &pipe::Receiver) -> io::Result<usize> {
        if self.read.is_empty() {
            self.read.resize(CHUNK, 0);
        }
        let count = pipe.try_read(&mut self.read)?;
        if self.log.is_kept() {
            let cut = self.cutter.feed(&self.read[..count], SystemTime::now(), &mut self.lines);
            self.log.append(&mut self.lines, cut);
        }
        Ok(count)
    }

    /// Hands what was read to each client.
    pub(crate) async fn show(&self, count: usize) {
        self.audience.send(self.stream, &self.read[..count], self.patience).await;
    }

    /// The stream ended: a line without an end is written as a piece.
    pub async fn finish(mut self) {
        let cut = self.cutter.finish(SystemTime::now(), &mut self.lines);
        if !self.lines.is_empty() {
            let _ = task::spawn_blocking(move || self.log.append(&mut self.lines, cut)).await; // nobody is left to tell
        }
    }

    /// Gives memory back while nothing comes; the start of a line stays.
    pub(crate) fn idle(&mut self) {
        (self.read, self.lines) = (Vec::new(), Vec::new());
    }
}
