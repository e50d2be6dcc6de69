//! The bounds of one connection, the same for both ends.

use crate::frame::{HEADER_LEN, MAX_MESSAGE};
use std::time::Duration;

/// The bounds of one connection. Queues hold memory only while something waits in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of frames that may wait to be written. A frame that alone exceeds it may wait alone.
    pub write_queue: usize,
    /// Bytes of messages that may wait for the consumer of one stream. A message that alone exceeds it may wait alone.
    pub stream_queue: usize,
    /// How long a full stream queue may hold up the connection before the stream is ended.
    pub stall: Duration,
}

impl Default for Limits {
    /// One message of the largest size in each queue, and a stall of one second, as the Go implementation has it.
    fn default() -> Self {
        Self { write_queue: HEADER_LEN + MAX_MESSAGE, stream_queue: MAX_MESSAGE, stall: Duration::from_secs(1) }
    }
}
