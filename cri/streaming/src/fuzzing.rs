//! What fuzz targets reach of this crate beside its users.

/// A message of a WebSocket as text or as bytes, from a client that can close streams or cannot: the channel and its bytes,
/// or the channel that ends.
pub fn message(base64: bool, closes: bool, message: &[u8]) -> Option<(u8, Option<Vec<u8>>)> {
    crate::websocket::understand(base64, closes, message)
}

/// The message that carries these bytes.
pub fn carry(base64: bool, channel: u8, data: &[u8]) -> Vec<u8> {
    crate::websocket::carry(base64, channel, data)
}
