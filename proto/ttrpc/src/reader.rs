//! Reads frames from a byte stream. What the frames mean is for the client and the server.

use crate::frame::{Decoded, Decoder};
use bytes::{BufMut, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Room for a read while no large frame is under way: most frames of a shim fit.
const IDLE_ROOM: usize = 512;

/// A buffer larger than this is not kept once its frame is out.
const KEPT_ROOM: usize = 8 * 1024;

pub(crate) struct Reader<R> {
    io: R,
    decoder: Decoder,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, decoder: Decoder::default(), buffer: BytesMut::new() }
    }

    /// The next frame; `None` when the peer closed between two frames. Cancel safe: a frame half read is kept.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Decoded>> {
        loop {
            let found = self.decoder.decode(&mut self.buffer);
            if let Some(decoded) = found.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                self.trim();
                return Ok(Some(decoded));
            }
            let room = self.decoder.room(&self.buffer).max(IDLE_ROOM);
            self.buffer.reserve(room);
            if self.io.read_buf(&mut (&mut self.buffer).limit(room)).await? == 0 {
                let clean = self.decoder.is_between_frames(&self.buffer);
                return if clean { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Leaves the memory of a large frame to the frame, so that an idle connection does not own it. What was read
    /// beyond the frame is at most [`IDLE_ROOM`].
    fn trim(&mut self) {
        if self.buffer.capacity() > KEPT_ROOM || self.buffer.is_empty() {
            let rest = std::mem::take(&mut self.buffer);
            self.buffer.extend_from_slice(&rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, Flags, Kind, MAX_MESSAGE};
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_large_frame_leaves_no_large_buffer() {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let frame = frame::encode_bytes(1, Kind::Data, Flags::NONE, &vec![7; MAX_MESSAGE]).unwrap();
        let writing = tokio::spawn(async move { near.write_all(&frame).await });
        let mut reader = Reader::new(far);
        let Some(Decoded::Frame(frame)) = reader.next().await.unwrap() else { panic!("a frame") };
        assert_eq!(frame.data.len(), MAX_MESSAGE);
        drop(frame);
        assert!(reader.buffer.capacity() <= KEPT_ROOM);
        writing.await.unwrap().unwrap();
        assert_eq!(reader.next().await.unwrap(), None, "closed between frames");
    }

    #[tokio::test]
    async fn a_connection_that_ends_within_a_frame_is_an_error() {
        for bytes in [&[0u8, 0][..], &[0, 0, 0, 1, 0, 0, 0, 1, 1, 0], &[0, 0x50, 0, 0, 0, 0, 0, 1, 1, 0, 9]] {
            let mut reader = Reader::new(bytes);
            let error = loop {
                match reader.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a clean end after {bytes:?}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
