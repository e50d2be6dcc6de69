//! Commands over SPDY: the client opens a stream for each thing, named by the header `streamtype`.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
};

use super::{Behind, Opened, Version, resize};
use crate::{
    idle::Idle,
    request::Streams,
    session::Session,
    spdy::{Incoming, Stream, serve},
};

/// How long a client may take to open its streams.
pub(crate) const OPENING: Duration = Duration::from_secs(30);

/// What the client has opened.
#[derive(Default)]
struct Opening {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Opening {
    /// The place of a stream type.
    fn place(&mut self, kind: &str) -> Option<&mut Option<Stream>> {
        Some(match kind {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return None,
        })
    }

    fn is_complete(&self, version: Version, streams: Streams) -> bool {
        let there = |wanted: bool, stream: &Option<Stream>| !wanted || stream.is_some();
        self.error.is_some()
            && there(streams.stdin, &self.stdin)
            && there(streams.stdout, &self.stdout)
            && there(streams.stderr, &self.stderr)
            && there(streams.tty && version.resizes(), &self.resize)
    }

    async fn take(&mut self, incoming: &mut mpsc::Receiver<Incoming>, version: Version, streams: Streams) -> bool {
        while !self.is_complete(version, streams) {
            let Some(stream) = incoming.recv().await else { return false };
            let kind = stream.header("streamtype").to_owned();
            match self.place(&kind) {
                Some(place @ None) => *place = Some(stream.accept()),
                _ => {
                    tracing::debug!(kind, "stream of no use refused");
                    stream.refuse();
                }
            }
        }
        true
    }
}

/// Waits for the streams; none when the client does not open them in time.
pub(super) async fn open(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    version: Version,
    streams: Streams,
    idle: Idle,
) -> Option<Opened> {
    let (connection, mut incoming) = serve(io, idle);
    let mut opening = Opening::default();
    let complete = tokio::time::timeout(OPENING, opening.take(&mut incoming, version, streams)).await;
    if complete != Ok(true) {
        tracing::debug!("client did not open its streams");
        return None;
    }
    let wanted = |wanted: bool, stream: Option<Stream>| stream.filter(|_| wanted);
    let size = match wanted(streams.tty, opening.resize) {
        Some(stream) => resize::follow(stream.input),
        None => watch::channel(None).1,
    };
    let session = Session {
        stdin: wanted(streams.stdin, opening.stdin).map(|stream| stream.input),
        stdout: wanted(streams.stdout, opening.stdout).map(|stream| stream.output),
        stderr: wanted(streams.stderr, opening.stderr).map(|stream| stream.output),
        size,
        gone: connection.gone(),
    };
    Some(Opened { session, error: opening.error?.output, behind: Behind::Spdy(connection) })
}
