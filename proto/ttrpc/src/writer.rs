//! Writes the frames of a connection, in the order in which they were queued.

use crate::queue::Receiver;
use bytes::Bytes;
use std::io;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Writes frames until every sender is gone, then shuts the write direction down. Room in the queue is given back only
/// when a frame has been handed to the socket.
pub(crate) async fn run<W: AsyncWrite + Unpin>(mut io: W, mut frames: Receiver<Bytes>) -> io::Result<()> {
    while let Some((frame, cost)) = frames.recv_held().await {
        io.write_all(&frame).await?;
        io.flush().await?;
        frames.release(cost);
    }
    io.shutdown().await
}
