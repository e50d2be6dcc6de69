//! Between blobs, which are async, and the applier, which blocks.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use kevel_contract::content::Blob;
use tokio::{runtime::Handle, sync::mpsc};

/// Bytes asked of a blob, and handed to an ingest, at once.
const PIECE: usize = 1 << 20;

/// Says whether the caller still waits; dropping the [`Waiting`] says that nobody does.
#[derive(Clone)]
pub(super) struct Gone(Arc<AtomicBool>);

/// Held by the caller while it waits.
pub(super) struct Waiting(Gone);

impl Waiting {
    pub(super) fn new() -> Self {
        Self(Gone(Arc::new(AtomicBool::new(false))))
    }

    pub(super) fn gone(&self) -> Gone {
        self.0.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

/// Reads a blob from a thread that may block. Fails once the caller is gone, which ends the work on it.
pub(super) struct BlobReader {
    blob: Box<dyn Blob>,
    runtime: Handle,
    gone: Gone,
    offset: u64,
    piece: Bytes,
}

impl BlobReader {
    pub(super) fn new(blob: Box<dyn Blob>, runtime: Handle, gone: Gone) -> Self {
        Self { blob, runtime, gone, offset: 0, piece: Bytes::new() }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.offset < self.blob.size() {
            if self.gone.0.load(Ordering::Acquire) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the caller is gone"));
            }
            self.piece = self
                .runtime
                .block_on(self.blob.read_at(self.offset, PIECE))
                .map_err(|error| io::Error::other(error.chain()))?;
            self.offset += self.piece.len() as u64;
            if self.piece.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob ends before its size"));
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// Hands what is written to an async receiver, in large pieces. Fails once the receiver is gone.
pub(super) struct PieceWriter {
    send: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl PieceWriter {
    /// A writer and the pieces that come out of it.
    pub(super) fn new() -> (Self, mpsc::Receiver<Bytes>) {
        let (send, receive) = mpsc::channel(2);
        (Self { send, piece: BytesMut::new() }, receive)
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.send.blocking_send(piece).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the layer"))
    }
}
