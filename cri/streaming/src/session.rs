//! The two ends of a stream, whatever it travels in, and what is known of a client's terminal. Bounded: whoever sends
//! waits for whoever takes.

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The client is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

/// What a client sends on a stream.
#[derive(Debug)]
pub struct Input {
    pieces: mpsc::Receiver<Bytes>,
    used: Option<crate::spdy::Credit>,
}

impl Input {
    pub(crate) fn new(pieces: mpsc::Receiver<Bytes>, used: Option<crate::spdy::Credit>) -> Self {
        Self { pieces, used }
    }

    /// The next bytes, never none of them; `None` after the client closed its side, or is gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.recv().await?;
        if let Some(credit) = &mut self.used {
            credit.give(piece.len());
        }
        Some(piece)
    }
}

impl Drop for Input {
    /// What nobody took counts as used, for the sake of the connection's other streams.
    fn drop(&mut self) {
        self.pieces.close();
        while let Ok(piece) = self.pieces.try_recv() {
            if let Some(credit) = &mut self.used {
                credit.give(piece.len());
            }
        }
    }
}

/// Where a client gets bytes from.
pub struct Output(Box<dyn Sink>);

/// How a transport sends.
#[async_trait]
pub(crate) trait Sink: Send + Sync + 'static {
    /// Sends bytes, waiting for a slow client.
    async fn send(&mut self, data: Bytes) -> Result<(), Gone>;
    /// Says that no more will come.
    async fn close(&mut self) -> Result<(), Gone>;
}

impl Output {
    pub(crate) fn new(sink: impl Sink) -> Self {
        Self(Box::new(sink))
    }

    /// Hands bytes to the connection, in their order. Waits while the client is slow.
    ///
    /// # Errors
    /// When the client is gone, or wants no more of this stream.
    pub async fn send(&mut self, data: Bytes) -> Result<(), Gone> {
        self.0.send(data).await
    }

    /// Tells the client that no more will come.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn close(mut self) -> Result<(), Gone> {
        self.0.close().await
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Output")
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// What a client opened for a command or a container.
#[derive(Debug)]
pub struct Session {
    /// Standard input, if it was asked for.
    pub stdin: Option<Input>,
    /// Standard output, if it was asked for.
    pub stdout: Option<Output>,
    /// Standard error, if it was asked for.
    pub stderr: Option<Output>,
    /// The client's terminal, once known. Only the latest size counts.
    pub size: watch::Receiver<Option<Size>>,
    /// Cancelled when the client is gone.
    pub gone: CancellationToken,
}

/// One forwarded connection.
#[derive(Debug)]
pub struct Tunnel {
    /// From the client.
    pub input: Input,
    /// To the client.
    pub output: Output,
    /// Cancelled when the client wants no more of it, or is gone. The end of the input without it is a half-close.
    pub gone: CancellationToken,
}
