//! A byte stream inside the binary messages of a WebSocket, for SPDY in it.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// What fits between the WebSocket and its user.
const BUFFER: usize = 64 << 10;

/// The stream of bytes in the WebSocket. It is read and written by a task that ends with the WebSocket or the stream.
pub(crate) fn tunnel<S>(socket: WebSocketStream<S>) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (near, far) = tokio::io::duplex(BUFFER);
    tokio::spawn(pump(socket, far));
    near
}

async fn pump<S: AsyncRead + AsyncWrite + Unpin>(socket: WebSocketStream<S>, far: DuplexStream) {
    let (mut to, mut from) = socket.split();
    let (mut out, mut into) = tokio::io::split(far);
    let receiving = async {
        while let Some(Ok(message)) = from.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(_) => break,
                _ => Bytes::new(),
            };
            if into.write_all(&data).await.is_err() {
                break;
            }
        }
        // The user sees the end, whatever the reason.
        let _ = into.shutdown().await;
    };
    let sending = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(BUFFER / 2);
            match out.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if to.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                return false;
            }
        }
        to.close().await.is_ok()
    };
    tokio::pin!(receiving, sending);
    tokio::select! {
        () = &mut receiving => {}
        closed = &mut sending => if closed { receiving.await },
    }
}
