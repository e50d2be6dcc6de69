//! WebSocket: the handshake's facts, `channels` for the protocols in which a message's first byte names a stream, and
//! `tunnel` for SPDY inside messages. Messages and frames themselves are tungstenite's.

mod channels;
mod tunnel;

use http::{HeaderMap, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

pub(crate) use channels::{Channel, Channels, Codec, carry, understand};
pub(crate) use tunnel::tunnel;

/// The largest message that is taken.
const MAX_MESSAGE: usize = 16 << 20;

/// Whether a request wants to become a WebSocket.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value(header::UPGRADE).eq_ignore_ascii_case("websocket")
        && value(header::CONNECTION).to_ascii_lowercase().contains("upgrade")
}

/// The proof that the handshake was understood; none when the request is not a correct one.
pub(crate) fn accept_key(headers: &HeaderMap) -> Option<String> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION)?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    (version == "13" && key.len() == 24)
        .then(|| tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes()))
}

/// The protocols that the client offers, best first.
pub(crate) fn protocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// The WebSocket on a connection that has done the handshake.
pub(crate) async fn server<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(1 << 20)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}
