//! Attach: a URL for a container's streams, and later the streams.

use std::sync::Arc;

use kevel_cri_logs::{Attachment, Io, Stream};
use kevel_cri_streaming::{Attach, Input, Output, Session, Streams};
use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::{AttachRequest, AttachResponse};

use super::exec::{copy_in, follow};
use crate::{index::Container, server::Server};

impl Server {
    /// A URL under which a container's streams will be, once.
    pub(crate) fn attach(&self, request: AttachRequest) -> Result<AttachResponse> {
        let AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
        let mut attach = Attach { container_id, streams: Streams { stdin, stdout, stderr, tty } };
        attach.check()?;
        attach.container_id = self.running(&attach.container_id)?.record.id.clone();
        Ok(AttachResponse { url: self.streaming.attach(attach)? })
    }

    /// Connects a client to a container's first process, from now on. Others may be attached as well.
    pub(crate) async fn run_attach(self: &Arc<Self>, attach: Attach, session: Session) -> Result<()> {
        let container = self.running(&attach.container_id)?;
        let id = container.record.id.as_str();
        let life = self.life(id);
        let io = life.as_ref().and_then(|life| life.io.as_ref());
        let io = io.ok_or_else(|| Error::failed_precondition(format!("container {id}: its streams are lost")))?;
        let Session { stdin, stdout, stderr, size, gone } = session;
        let watches = stdout.is_some() || stderr.is_some();
        let output = async {
            if watches {
                copy_out(io.attach(stdout.is_some(), stderr.is_some()), stdout, stderr).await
            } else {
                io.drained().await;
                Ok(())
            }
        };
        let input = async {
            let Some(stdin) = stdin else { return std::future::pending().await };
            if self.feed(&container, io, stdin).await && watches {
                std::future::pending::<()>().await;
            }
        };
        let sizes = async {
            follow(self, id, "", size).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = output => ended,
            () = input => Ok(()),
            () = sizes => Ok(()),
            () = gone.cancelled() => {
                self.close_once(&container, io).await;
                Ok(())
            }
        }
    }

    /// Copies the client's input; answers whether the client stays when it has ended. It does when that ended the
    /// container's own input; from any other it goes, as from a terminal.
    async fn feed(&self, container: &Container, io: &Io, input: Input) -> bool {
        match io.stdin().await {
            Ok(pipe) => copy_in(input, pipe).await,
            Err(error) => {
                // An output can still be watched.
                tracing::debug!(container = container.record.id, %error, "input of an attached client is thrown away");
                return true;
            }
        }
        self.close_once(container, io).await
    }

    /// Ends the input of a container that has it for one client only; answers whether it is one.
    async fn close_once(&self, container: &Container, io: &Io) -> bool {
        let config = &container.record.config;
        let once = config.stdin && config.stdin_once && !config.tty;
        if once {
            io.close_stdin().await;
            let closed = self.tasks.close_io(&self.scope, &container.record.id, "").await;
            if let Err(error) = closed {
                tracing::debug!(container = container.record.id, error = error.chain(), "closing a container's input");
            }
        }
        once
    }
}

/// Copies until the container's output ends.
async fn copy_out(mut from: Attachment, mut stdout: Option<Output>, mut stderr: Option<Output>) -> Result<()> {
    while let Some(chunk) = from.next().await {
        let output = match chunk.stream {
            Stream::Stdout => stdout.as_mut(),
            Stream::Stderr => stderr.as_mut(),
        };
        if let Some(output) = output
            && output.send(chunk.data).await.is_err()
        {
            return Ok(());
        }
    }
    if from.was_let_go() {
        return Err(Error::resource_exhausted("the client did not read in time; output is lost from here on"));
    }
    Ok(())
}
