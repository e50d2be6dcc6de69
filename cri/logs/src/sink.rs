//! Where one stream of a container goes: into the log, and to whoever is attached.

use std::time::{Duration, SystemTime};

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

/// One stream's way. Whoever reads the stream hands over what it read, in order, and says when it ended.
#[derive(Debug)]
pub struct Sink {
    stream: Stream,
    log: Log,
    audience: Audience,
    patience: Duration,
    cutter: Cutter,
    lines: Vec<u8>,
}

impl Sink {
    pub(crate) fn new(stream: Stream, log: Log, audience: Audience, settings: &Settings) -> Self {
        let cutter = Cutter::new(stream, settings.max_line);
        Self { stream, log, audience, patience: settings.patience, cutter, lines: Vec::new() }
    }

    /// Takes what was read: one write to the log, one chunk for each client.
    pub async fn write(&mut self, data: &[u8]) {
        if self.log.is_kept() {
            let cut = self.cutter.feed(data, SystemTime::now(), &mut self.lines);
            self.lines = self.log.write(std::mem::take(&mut self.lines), cut).await;
        }
        self.audience.send(self.stream, data, self.patience).await;
    }

    /// The stream ended: a line without an end is written as a piece.
    pub async fn finish(mut self) {
        let cut = self.cutter.finish(SystemTime::now(), &mut self.lines);
        if self.log.is_kept() {
            self.log.write(std::mem::take(&mut self.lines), cut).await;
        }
    }

    /// Gives memory back while nothing comes; the start of a line stays.
    pub(crate) fn idle(&mut self) {
        self.lines = Vec::new();
    }
}
