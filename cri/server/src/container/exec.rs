//! Exec: a URL for a command, and later the command with its client's streams.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use bytes::BytesMut;
use kevel_contract::task::{self, Stdio};
use kevel_cri_logs::{Fifos, Pipes};
use kevel_cri_streaming::{Exec, Input, Output, Session, Size, Streams};
use kevel_model::{Any, Result};
use kevel_proto::runtime::v1::{ExecRequest, ExecResponse};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{exec_sync::process, log_error};
use crate::{
    files::{self, blocking},
    identity,
    server::Server,
};

/// How long a pipe may be silent after the command ended, held open by a child that it left behind.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a shim may take to open its end of a process's input: it answers before it has.
const OPENING: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const RETRY: Duration = Duration::from_millis(10);
/// What is read from a pipe at once.
const CHUNK: usize = 32 << 10;
/// What a terminal that went away does to its processes.
const HANGUP: u32 = 1;

impl Server {
    /// A URL under which the command will run, once.
    pub(crate) fn exec(&self, request: ExecRequest) -> Result<ExecResponse> {
        let ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
        let mut exec = Exec { container_id, cmd, streams: Streams { stdin, stdout, stderr, tty } };
        exec.check()?;
        exec.container_id = self.running(&exec.container_id)?.record.id.clone();
        Ok(ExecResponse { url: self.streaming.exec(exec)? })
    }

    /// Runs a command with a client's streams; answers its exit code when all its output is handed to the client. A
    /// client that goes away takes its input with it, and its terminal; what runs without one runs on.
    pub(crate) async fn run_exec(self: &Arc<Self>, exec: Exec, session: Session) -> Result<i32> {
        let id = self.running(&exec.container_id)?.record.id.clone();
        let (exec_id, tty) = (identity::new_id()?, exec.streams.tty);
        let process = process(self, &id, &exec.cmd, tty).await?;
        let (dir, name, stdin) = (self.settings.files.container_state(&id), exec_id.clone(), session.stdin.is_some());
        let fifos = blocking(move || {
            files::make_dir(&dir)?;
            Ok(Fifos::create(&dir, &name, stdin, tty))
        });
        let fifos = fifos.await?.map_err(|error| log_error(format!("making pipes for a command in {id}"), error))?;
        let command = Command { server: self.clone(), id, exec_id };
        let done = command.run(process, &fifos, session, tty).await;
        command.remove().await;
        let _ = blocking(move || Ok(fifos.remove())).await;
        done
    }
}

/// A command in a container.
struct Command {
    server: Arc<Server>,
    id: String,
    exec_id: String,
}

impl Command {
    async fn run(&self, process: Any, fifos: &Fifos, session: Session, tty: bool) -> Result<i32> {
        let doing = |doing: &str| {
            let doing = format!("{doing} of a command in {}", self.id);
            move |error| log_error(doing, error)
        };
        let Pipes { stdout, stderr, keepers } = fifos.open().map_err(doing("opening pipes"))?;
        self.start(process, fifos, tty).await?;
        let stdin = match session.stdin {
            Some(input) => Some((input, fifos.open_stdin().map_err(doing("opening the input"))?)),
            None => None,
        };
        drop(keepers); // the shim has its ends now: the streams end when it closes them
        let exited = CancellationToken::new();
        let ended = async {
            let exit = self.server.tasks.wait(&self.server.scope, &self.id, &self.exec_id).await;
            exited.cancel();
            exit
        };
        let errors = async {
            if let Some(stderr) = stderr {
                copy_out(stderr, session.stderr, &exited).await;
            }
        };
        let output = async { tokio::join!(ended, copy_out(stdout, session.stdout, &exited), errors).0 };
        let aside = async {
            tokio::join!(
                self.copy_in(stdin),
                follow(&self.server, &self.id, &self.exec_id, session.size),
                self.hang_up(tty, &session.gone)
            );
            std::future::pending::<std::convert::Infallible>().await
        };
        let exit = tokio::select! {
            exit = output => exit?,
            never = aside => match never {},
        };
        Ok(i32::try_from(exit.status.min(255)).unwrap_or(255))
    }

    async fn start(&self, process: Any, fifos: &Fifos, terminal: bool) -> Result<()> {
        let Self { server, id, exec_id } = self;
        let stdio = Stdio { stdin: fifos.stdin(), stdout: fifos.stdout(), stderr: fifos.stderr(), terminal };
        let exec = task::Exec { container_id: id.clone(), exec_id: exec_id.clone(), stdio, spec: Some(process) };
        server.bounded("adding a command", server.tasks.exec(&server.scope, exec)).await?;
        server.bounded("starting a command", server.tasks.start(&server.scope, id, exec_id)).await.map(drop)
    }

    /// The end of the client's input is the end of the command's.
    async fn copy_in(&self, stdin: Option<(Input, pipe::Sender)>) {
        let Some((input, pipe)) = stdin else { return };
        copy_in(input, pipe).await;
        // The shim holds an end of its own.
        if let Err(error) = self.server.tasks.close_io(&self.server.scope, &self.id, &self.exec_id).await
            && !error.is_not_found()
        {
            tracing::debug!(container = self.id, error = error.chain(), "closing a command's input");
        }
    }

    /// A terminal whose client is gone hangs up, so that a shell does not stay for ever.
    async fn hang_up(&self, tty: bool, gone: &CancellationToken) {
        gone.cancelled().await;
        if tty {
            let (container_id, exec_id) = (self.id.clone(), self.exec_id.clone());
            let kill = task::Kill { container_id, exec_id, signal: HANGUP, all: false };
            if let Err(error) = self.server.tasks.kill(&self.server.scope, kill).await {
                tracing::debug!(container = self.id, error = error.chain(), "hanging up a command's terminal");
            }
        }
    }

    async fn remove(&self) {
        let removed = self.server.tasks.delete_process(&self.server.scope, &self.id, &self.exec_id).await;
        if let Err(error) = removed
            && !error.is_not_found()
        {
            tracing::debug!(container = self.id, error = error.chain(), "removing a command");
        }
    }
}

/// Copies until the client closed its side or nobody reads any more.
pub(super) async fn copy_in(mut input: Input, mut pipe: pipe::Sender) {
    let Some(first) = input.next().await else { return };
    let late = Instant::now() + OPENING;
    // Nothing of a write is taken when there is no reader, so it can be done again.
    while let Err(error) = pipe.write_all(&first).await {
        if error.kind() != ErrorKind::BrokenPipe || Instant::now() >= late {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
    while let Some(piece) = input.next().await {
        if pipe.write_all(&piece).await.is_err() {
            return;
        }
    }
}

/// Copies until the stream ends, however slow the client is. What nobody asked for, or whose client is gone, is read
/// and thrown away: the shim holds the pipe's other end too, so that a process would wait for a reader for ever.
async fn copy_out(mut pipe: pipe::Receiver, mut output: Option<Output>, exited: &CancellationToken) {
    let mut buffer = BytesMut::new();
    let silent = || async {
        exited.cancelled().await;
        tokio::time::sleep(SILENCE).await;
    };
    loop {
        buffer.reserve(CHUNK);
        let read = tokio::select! {
            read = pipe.read_buf(&mut buffer) => read,
            () = silent() => return tracing::debug!("output did not end with the command"),
        };
        match read {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return tracing::warn!(%error, "reading a command's output"),
        }
        let data = buffer.split().freeze();
        if let Some(to) = &mut output
            && to.send(data).await.is_err()
        {
            output = None;
        }
    }
}

/// Gives a process's terminal the size of its client's, until the client goes.
pub(super) async fn follow(server: &Server, id: &str, exec_id: &str, mut size: watch::Receiver<Option<Size>>) {
    loop {
        let now = *size.borrow_and_update();
        if let Some(Size { width, height }) = now {
            let resized = server.tasks.resize(&server.scope, id, exec_id, width.into(), height.into()).await;
            if let Err(error) = resized {
                tracing::debug!(container = id, error = error.chain(), "resizing a terminal");
            }
        }
        if size.changed().await.is_err() {
            return;
        }
    }
}
