//! Commands over WebSocket: a channel for each stream, numbered as file descriptors are, then errors and sizes.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_tungstenite::WebSocketStream;

use super::{Behind, Opened, Version, resize};
use crate::{
    idle::Idle,
    request::Streams,
    session::Session,
    websocket::{Channel, Channels, Codec},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Opens the channels; none when the client is gone already.
pub(super) async fn open<S>(
    socket: WebSocketStream<S>,
    version: Version,
    codec: Codec,
    streams: Streams,
    idle: Idle,
) -> Option<Opened>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let read = |wanted| if wanted { Channel::Read } else { Channel::Ignored };
    let write = Channel::Write { read: false };
    let layout = [read(streams.stdin), write, write, write, read(streams.tty)];
    let mut channels = Channels::start(socket, codec, version >= Version::V5, &layout, idle);
    // An empty message on the first channel that is written to tells the client that everything is there.
    let first = match streams {
        Streams { stdout: true, .. } => STDOUT,
        Streams { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    channels.send(first, &[]).await.ok()?;
    let size = channels.input(RESIZE).map_or_else(|| watch::channel(None).1, resize::follow);
    let session = Session {
        stdin: channels.input(STDIN),
        stdout: streams.stdout.then(|| channels.output(STDOUT)),
        stderr: streams.stderr.then(|| channels.output(STDERR)),
        size,
        gone: channels.gone(),
    };
    Some(Opened { session, error: channels.output(ERROR), behind: Behind::WebSocket(channels) })
}
