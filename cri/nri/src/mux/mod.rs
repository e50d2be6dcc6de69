//! Two ttrpc connections over one socket: frames of a connection's number, a length and that many bytes.
//!
//! The protocol has no flow control. What arrives is handed on as it comes; while one connection is not read, neither
//! is the socket, which both ends of ours always do.

mod boundary;

use std::io;

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf},
    sync::Mutex,
};

/// On which the plugin serves.
const PLUGIN: u32 = 1;
/// On which the runtime serves.
const RUNTIME: u32 = 2;
/// Bytes before the payload: number and length, each 32 bits, big-endian.
const HEADER: usize = 8;
/// The longest payload: the largest ttrpc message with its header.
const LONGEST: usize = kevel_ttrpc::frame::HEADER_LEN + kevel_ttrpc::frame::MAX_MESSAGE;
/// Bytes that may wait between a ttrpc connection and the socket.
const BUFFER: usize = 64 << 10;

/// The two connections.
pub(crate) struct Mux {
    /// To the service of the plugin.
    pub(crate) plugin: DuplexStream,
    /// Of the service of the runtime.
    pub(crate) runtime: DuplexStream,
}

impl Mux {
    /// Starts to carry two connections over `trunk`. It ends, and both with it, when the trunk does or when one of the
    /// two is dropped.
    pub(crate) fn over<IO>(trunk: IO) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (plugin, plugin_end) = tokio::io::duplex(BUFFER);
        let (runtime, runtime_end) = tokio::io::duplex(BUFFER);
        tokio::spawn(async move {
            if let Err(error) = carry(trunk, plugin_end, runtime_end).await {
                tracing::debug!(%error, "an NRI connection broke");
            }
        });
        Self { plugin, runtime }
    }
}

async fn carry(
    trunk: impl AsyncRead + AsyncWrite + Send,
    plugin: DuplexStream,
    runtime: DuplexStream,
) -> io::Result<()> {
    let (from_trunk, to_trunk) = tokio::io::split(trunk);
    let to_trunk = Mutex::new(to_trunk);
    let (from_plugin, to_plugin) = tokio::io::split(plugin);
    let (from_runtime, to_runtime) = tokio::io::split(runtime);
    tokio::select! {
        ended = apart(from_trunk, to_plugin, to_runtime) => ended,
        ended = together(PLUGIN, from_plugin, &to_trunk) => ended,
        ended = together(RUNTIME, from_runtime, &to_trunk) => ended,
    }
}

/// From the trunk to the connections.
async fn apart(
    mut trunk: ReadHalf<impl AsyncRead + AsyncWrite>,
    mut plugin: WriteHalf<DuplexStream>,
    mut runtime: WriteHalf<DuplexStream>,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut frame = Frame { connection: 0, left: 0 };
    loop {
        buffer.reserve(BUFFER);
        if trunk.read_buf(&mut buffer).await? == 0 {
            return match frame.left == 0 && buffer.is_empty() {
                true => Ok(()),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        while let Some((connection, piece)) = frame.next(&mut buffer)? {
            match connection {
                PLUGIN => plugin.write_all(&piece).await?,
                RUNTIME => runtime.write_all(&piece).await?,
                _ => {} // of no connection that is open, so it is dropped
            }
        }
    }
}

/// Where in the stream of frames a reader is.
struct Frame {
    connection: u32,
    /// Bytes of the payload that have not come.
    left: usize,
}

impl Frame {
    /// The next piece of a payload; `None` when more bytes are needed.
    fn next(&mut self, buffer: &mut BytesMut) -> io::Result<Option<(u32, BytesMut)>> {
        if self.left == 0 {
            if buffer.len() < HEADER {
                return Ok(None);
            }
            (self.connection, self.left) = (buffer.get_u32(), buffer.get_u32() as usize);
            if self.left > LONGEST {
                // The position in the stream is lost, and so is the connection.
                return Err(io::Error::other(format!("frame of {} bytes, more than {LONGEST}", self.left)));
            }
        }
        let piece = buffer.split_to(self.left.min(buffer.len()));
        self.left -= piece.len();
        Ok((!piece.is_empty() || self.left == 0).then_some((self.connection, piece)))
    }
}

/// What a trunk's bytes are to the two connections; for fuzz targets.
pub(crate) fn apart_all<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> ([Vec<u8>; 2], io::Result<()>) {
    let (mut frame, mut buffer) = (Frame { connection: 0, left: 0 }, BytesMut::new());
    let mut out = [Vec::new(), Vec::new()];
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match frame.next(&mut buffer) {
                Ok(Some((PLUGIN, piece))) => out[0].extend_from_slice(&piece),
                Ok(Some((RUNTIME, piece))) => out[1].extend_from_slice(&piece),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return (out, Err(error)),
            }
        }
    }
    (out, Ok(()))
}

/// From a connection to the trunk.
async fn together(
    connection: u32,
    mut from: ReadHalf<DuplexStream>,
    trunk: &Mutex<WriteHalf<impl AsyncRead + AsyncWrite>>,
) -> io::Result<()> {
    let (mut buffer, mut frames) = (BytesMut::new(), BytesMut::new());
    while let Some(message) = message(&mut from, &mut buffer).await? {
        for piece in boundary::cut(&message) {
            frames.put_u32(connection);
            frames.put_u32(u32::try_from(piece.len()).map_err(io::Error::other)?);
            frames.extend_from_slice(piece);
        }
        let mut trunk = trunk.lock().await;
        trunk.write_all(&frames).await?;
        trunk.flush().await?;
        frames.clear();
    }
    Ok(())
}

/// The next message, whole; `None` at the end.
async fn message(from: &mut ReadHalf<DuplexStream>, buffer: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    loop {
        if let Some(length) = boundary::length(buffer).filter(|length| *length <= buffer.len()) {
            return Ok(Some(buffer.split_to(length)));
        }
        buffer.reserve(BUFFER);
        if from.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(connection: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&connection.to_be_bytes()[..], &length.to_be_bytes()[..], payload].concat()
    }

    /// What arrives at each of the two connections when `chunks` come over the trunk.
    async fn received(chunks: Vec<Vec<u8>>) -> (Vec<u8>, Vec<u8>) {
        let (mut far, near) = tokio::io::duplex(1 << 10);
        let Mux { mut plugin, mut runtime } = Mux::over(near);
        let send = async move {
            for chunk in chunks {
                far.write_all(&chunk).await.unwrap();
            }
            drop(far);
        };
        let (mut one, mut two) = (Vec::new(), Vec::new());
        tokio::join!(send, async { plugin.read_to_end(&mut one).await.unwrap() }, async {
            runtime.read_to_end(&mut two).await.unwrap()
        });
        (one, two)
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_ends_the_connection() {
        let mut bytes = frame(PLUGIN, b"before");
        bytes.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        bytes.extend_from_slice(&frame(PLUGIN, b"after"));
        assert_eq!(received(vec![bytes]).await, (b"before".to_vec(), Vec::new()));
    }

    #[tokio::test]
    async fn dropping_one_connection_ends_the_trunk() {
        let (mut far, near) = tokio::io::duplex(64);
        let Mux { plugin, runtime } = Mux::over(near);
        drop(plugin);
        let mut rest = Vec::new();
        assert_eq!(far.read_to_end(&mut rest).await.unwrap(), 0);
        drop(runtime);
    }

    fn messages(lengths: &[usize]) -> Vec<u8> {
        use kevel_ttrpc::frame::{Flags, Kind, encode_bytes};
        let message = |length: &usize| encode_bytes(1, Kind::Data, Flags::NONE, &vec![7; *length]).unwrap().to_vec();
        lengths.iter().flat_map(message).collect()
    }

    /// 256 frames that wait are too many for the Go implementation.
    #[tokio::test]
    async fn the_largest_message_comes_in_two_frames() {
        let (mut far, near) = tokio::io::duplex(1 << 16);
        let mut mux = Mux::over(near);
        let message = messages(&[kevel_ttrpc::frame::MAX_MESSAGE]);
        let sent = message.clone();
        let sending = tokio::spawn(async move {
            mux.plugin.write_all(&sent).await.unwrap();
            mux
        });
        let mut got = Vec::new();
        for expected in [4096, message.len() - 4096] {
            assert_eq!(far.read_u32().await.unwrap(), PLUGIN);
            assert_eq!(far.read_u32().await.unwrap() as usize, expected);
            let mut piece = vec![0; expected];
            far.read_exact(&mut piece).await.unwrap();
            got.extend_from_slice(&piece);
        }
        assert_eq!(got, message);
        drop(sending.await.unwrap());
    }

    proptest! {
        #[test]
        fn what_is_sent_apart_arrives_apart(
            frames in proptest::collection::vec((0u32..4, proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
            size in 1usize..200,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(connection, payload)| frame(*connection, payload)).collect();
            let of = |wanted: u32| -> Vec<u8> {
                frames.iter().filter(|(connection, _)| *connection == wanted).flat_map(|(_, p)| p.clone()).collect()
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (one, two) = runtime.block_on(received(bytes.chunks(size).map(<[u8]>::to_vec).collect()));
            prop_assert_eq!(one, of(PLUGIN));
            prop_assert_eq!(two, of(RUNTIME));
        }

        #[test]
        fn two_muxes_understand_each_other(
            one in proptest::collection::vec(0usize..12_000, 0..6),
            two in proptest::collection::vec(0usize..12_000, 0..6),
            trunk in 16usize..9000,
        ) {
            let (one, two) = (messages(&one), messages(&two));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (got_one, got_two) = runtime.block_on(async {
                let (left, right) = tokio::io::duplex(trunk);
                let (mut left, mut right) = (Mux::over(left), Mux::over(right));
                let (mut got_one, mut got_two) = (vec![0; one.len()], vec![0; two.len()]);
                tokio::join!(
                    async { left.plugin.write_all(&one).await.unwrap() },
                    async { left.runtime.write_all(&two).await.unwrap() },
                    async { right.plugin.read_exact(&mut got_one).await.unwrap() },
                    async { right.runtime.read_exact(&mut got_two).await.unwrap() },
                );
                (got_one, got_two)
            });
            prop_assert_eq!(got_one, one);
            prop_assert_eq!(got_two, two);
        }
    }
}
