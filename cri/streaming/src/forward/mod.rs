//! Forwarded ports: connections that a client makes to a pod, each a stream of data and one for an error.

mod spdy;
mod websocket;

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use crate::{
    idle::Idle,
    request::PortForward,
    runtime::Runtime,
    session::{Output, Tunnel},
    websocket::{Codec, tunnel},
};

/// The protocol's name over SPDY.
pub(crate) const PROTOCOL: &str = "portforward.k8s.io";
/// Its name when SPDY is inside a WebSocket.
pub(crate) const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";

/// The client's connection, with the protocol that was agreed on.
pub(crate) enum Transport<S> {
    Spdy(S),
    /// SPDY inside a WebSocket.
    Tunnelled(Box<WebSocketStream<S>>),
    /// Two channels for each port of the request.
    Channels(Box<WebSocketStream<S>>, Codec),
}

/// Forwards until the client goes.
pub(crate) async fn serve<S>(transport: Transport<S>, request: PortForward, idle: Idle, runtime: Arc<dyn Runtime>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match transport {
        Transport::Spdy(io) => spdy::forward(io, request.pod_id, idle, runtime).await,
        Transport::Tunnelled(socket) => spdy::forward(tunnel(*socket), request.pod_id, idle, runtime).await,
        Transport::Channels(socket, codec) => websocket::forward(*socket, codec, request, idle, runtime).await,
    }
}

/// Forwards one connection and tells the client what went wrong, if anything did.
async fn connection(runtime: &dyn Runtime, pod: &str, port: u16, tunnel: Tunnel, error: &mut Output) {
    let Err(failure) = runtime.port_forward(pod, port, tunnel).await else { return };
    let why = format!("error forwarding port {port} to pod {pod}: {}", failure.chain());
    tracing::debug!(pod, port, error = failure.chain(), "forwarding a port");
    // The client may be gone, and then nobody wants to know.
    let _ = error.send(Bytes::from(why)).await;
}
