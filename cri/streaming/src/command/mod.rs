//! Commands and attaching: the streams of a terminal or a program, over SPDY or WebSocket, and how the end is told.

mod resize;
mod spdy;
mod status;
mod version;
mod websocket;

pub(crate) use spdy::OPENING;
pub(crate) use status::Ended;
pub(crate) use version::Version;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use crate::{
    idle::Idle,
    request::Streams,
    session::{Output, Session},
    websocket::Codec,
};

/// The client's connection, with the protocol that was agreed on.
pub(crate) enum Transport<S> {
    Spdy(S, Version),
    WebSocket(Box<WebSocketStream<S>>, Version, Codec),
}

/// Whatever runs with the client's streams until it ends.
pub(crate) type Work = Box<dyn FnOnce(Session) -> BoxFuture<'static, Ended> + Send>;

/// The connection behind a session.
enum Behind {
    Spdy(crate::spdy::Connection),
    WebSocket(crate::websocket::Channels),
}

/// A session and what remains for its end.
struct Opened {
    session: Session,
    /// Where the end is told.
    error: Output,
    behind: Behind,
}

/// Opens the streams, has the work done with them, tells how it ended, and lets the client go.
pub(crate) async fn serve<S>(transport: Transport<S>, streams: Streams, idle: Idle, work: Work)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (opened, version) = match transport {
        Transport::Spdy(io, version) => (spdy::open(io, version, streams, idle).await, version),
        Transport::WebSocket(socket, version, codec) => {
            (websocket::open(*socket, version, codec, streams, idle).await, version)
        }
    };
    let Some(Opened { session, mut error, behind }) = opened else { return };
    let ended = work(session).await;
    let status = version.status(&ended);
    if !status.is_empty() {
        // The client may be gone, and then nobody wants to know.
        let _ = error.send(Bytes::from(status)).await;
    }
    let _ = error.close().await;
    match behind {
        Behind::Spdy(connection) => connection.finish().await,
        Behind::WebSocket(channels) => channels.finish().await,
    }
}
