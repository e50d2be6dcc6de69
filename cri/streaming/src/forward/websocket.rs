//! Ports over WebSocket channels: two for each port of the request, data and error, which both begin with the port's
//! number as two bytes, the lower one first.

use std::sync::Arc;

use futures::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use crate::{
    idle::Idle,
    request::PortForward,
    runtime::Runtime,
    session::Tunnel,
    websocket::{Channel, Channels, Codec},
};

/// Makes one connection to each port and forwards until all have ended or the client goes.
pub(super) async fn forward<S>(
    socket: WebSocketStream<S>,
    codec: Codec,
    request: PortForward,
    idle: Idle,
    runtime: Arc<dyn Runtime>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let layout = [Channel::Write { read: true }, Channel::Write { read: false }].repeat(request.ports.len());
    let mut channels = Channels::start(socket, codec, false, &layout, idle);
    let mut connections = Vec::new();
    for (data, port) in (0..).step_by(2).zip(&request.ports) {
        let Some(input) = channels.input(data) else { return };
        for channel in [data, data + 1] {
            if channels.send(channel, &port.to_le_bytes()).await.is_err() {
                return;
            }
        }
        let tunnel = Tunnel { input, output: channels.output(data), gone: channels.gone() };
        let mut error = channels.output(data + 1);
        let (runtime, pod) = (&*runtime, request.pod_id.as_str());
        connections.push(async move { super::connection(runtime, pod, *port, tunnel, &mut error).await });
    }
    join_all(connections).await;
    channels.finish().await;
}
