//! The streams of one process: tasks that read its pipes until they end.

use std::{io, sync::Arc};

use futures::future::join_all;
use tokio::{
    net::unix::pipe,
    sync::{Mutex, watch},
    task::{self, JoinHandle},
};

use crate::{
    attach::{Attachment, Audience},
    error::{Error, Result},
    fifo::{Fifos, Keepers},
    line::Stream,
    log::Log,
    sink::{Settings, Sink},
};

/// A running process's streams. Dropping it stops reading, and the process then waits when its pipes are full.
#[derive(Debug)]
pub struct Io {
    fifos: Fifos,
    log: Log,
    audience: Audience,
    keepers: Mutex<Option<Keepers>>,
    stdin: Mutex<Option<pipe::Sender>>,
    ended: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Io {
    /// Starts to read. Call it before the shim opens its ends, then [`Io::connected`].
    pub fn start(fifos: Fifos, log: Log, settings: &Settings) -> Result<Self> {
        let pipes = fifos.open()?;
        let audience = Audience::new();
        let sink = |stream| Sink::new(stream, log.clone(), audience.clone(), settings, fifos.spool(stream));
        let mut flows = vec![Flow { pipe: Arc::new(pipes.stdout), sink: sink(Stream::Stdout) }];
        flows.extend(pipes.stderr.map(|pipe| Flow { pipe: Arc::new(pipe), sink: sink(Stream::Stderr) }));
        let (end, ended) = watch::channel(false);
        let watched = audience.clone();
        let task = tokio::spawn(async move {
            join_all(resume(flows).await.into_iter().map(Flow::pump)).await;
            watched.end();
            end.send_replace(true);
        });
        let (keepers, stdin) = (Mutex::new(Some(pipes.keepers)), Mutex::new(None));
        Ok(Self { fifos, log, audience, keepers, stdin, ended, task })
    }

    /// The shim has opened its ends (its answer to Create or Exec says so): from now on a stream ends when the shim
    /// closes it. Standard input stays open until [`Io::close_stdin`].
    pub async fn connected(&self) -> Result<()> {
        let Some(keepers) = self.keepers.lock().await.take() else { return Ok(()) };
        if keepers.stdin.is_some() {
            // Opened while the old end is still there: input must not end in between. Nobody reads it if the process
            // is gone already, and then there is nothing to keep open.
            *self.stdin.lock().await = self.fifos.open_stdin().ok();
        }
        Ok(())
    }

    /// Output from now on. `stderr` of a terminal never has any.
    pub fn attach(&self, stdout: bool, stderr: bool) -> Attachment {
        self.audience.attach(stdout, stderr)
    }

    /// Another writer to standard input. Dropping it does not end the input.
    pub async fn stdin(&self) -> Result<pipe::Sender> {
        if self.stdin.lock().await.is_none() && self.keepers.lock().await.is_none() {
            return Err(Error::NoStdin);
        }
        self.fifos.open_stdin()
    }

    /// Lets the input end when the last writer is gone. The shim holds an end of its own until its CloseIO.
    pub async fn close_stdin(&self) {
        self.stdin.lock().await.take();
        if let Some(keepers) = self.keepers.lock().await.as_mut() {
            keepers.stdin = None;
        }
    }

    /// The log of the process.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The paths for the shim.
    pub fn fifos(&self) -> &Fifos {
        &self.fifos
    }

    /// Waits until every output stream has ended and is written. Give it a deadline: a child that the process left
    /// behind can hold a stream open.
    pub async fn drained(&self) {
        let mut ended = self.ended.clone();
        // The other side goes away without a word only if the task was stopped.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether every output stream has ended.
    pub fn is_drained(&self) -> bool {
        *self.ended.borrow()
    }

    /// Stops reading, ended or not, and lets attached clients go.
    pub fn stop(&self) {
        self.task.abort();
        self.audience.end();
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One stream.
struct Flow {
    pipe: Arc<pipe::Receiver>,
    sink: Sink,
}

/// Goes on where the daemon before this one was ended, whatever it was doing.
async fn resume(mut flows: Vec<Flow>) -> Vec<Flow> {
    if !flows.iter().any(|flow| flow.sink.has_past()) {
        return flows;
    }
    let work = task::spawn_blocking(move || {
        flows.iter_mut().for_each(|flow| flow.sink.settle());
        for Flow { pipe, sink } in &mut flows {
            if let Err(error) = sink.catch_up(pipe) {
                tracing::warn!(%error, "output of a container from before a restart");
            }
        }
        flows
    });
    work.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "a thread of a container's streams ended");
        Vec::new()
    })
}

impl Flow {
    /// Reads a pipe to its end. A stream that is silent holds no buffers.
    async fn pump(self) {
        let Self { pipe, mut sink } = self;
        loop {
            let ready = pipe.readable().await;
            let (left, count) = match ready {
                Ok(()) => sink.take(pipe.clone()).await,
                Err(error) => (Some(sink), Err(error)),
            };
            let Some(left) = left else { return tracing::warn!("a thread of a container's stream ended") };
            sink = left;
            match count {
                Ok(0) => break,
                Ok(count) => sink.show(count).await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sink.idle(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "stream of a container given up");
                    break;
                }
            }
        }
        sink.finish().await;
    }
}
