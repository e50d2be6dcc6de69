//! Frames: the ten byte header, its encoding, and a decoder that is fed bytes. No I/O happens here.
//!
//! Layout, integers big-endian: length of the data `u32`, stream id `u32`, type `u8`, flags `u8`, data. Source: the
//! ttrpc protocol specification, version 1.2.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// Bytes of a frame header.
pub const HEADER_LEN: usize = 10;

/// The most data bytes a frame may carry: 4 MiB.
pub const MAX_MESSAGE: usize = 4 << 20;

/// A decoder asks for at most this much room at a time, so that a header alone cannot make it reserve megabytes.
const GROWTH: usize = 64 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens a stream (client to server).
    Request,
    /// Ends a stream (server to client).
    Response,
    /// A message within a stream.
    Data,
    /// A type that this version does not know; receivers ignore it.
    Other(u8),
}

impl From<u8> for Kind {
    fn from(byte: u8) -> Self {
        match byte {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Data,
            other => Self::Other(other),
        }
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Request => 1,
            Kind::Response => 2,
            Kind::Data => 3,
            Kind::Other(other) => other,
        }
    }
}

/// The flags of a frame. Unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No flag: a unary request, a response, or a message with more to come.
    pub const NONE: Self = Self(0);
    /// The sender will send no more data on this stream.
    pub const REMOTE_CLOSED: Self = Self(0x1);
    /// The sender will send data on this stream.
    pub const REMOTE_OPEN: Self = Self(0x2);
    /// The frame carries no message (an empty message is a message).
    pub const NO_DATA: Self = Self(0x4);
    /// The last frame of a direction when it carries no message.
    pub const END: Self = Self(0x1 | 0x4);

    /// A request that opens a stream without a first message. Servers of the Rust `ttrpc` crate take the payload, even
    /// an empty one, for a message unless they are told; the Go ones decide by the payload alone.
    pub const OPEN_EMPTY: Self = Self(0x2 | 0x4);

    /// Whether every bit of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a request with these flags opens a stream rather than a unary call.
    pub fn is_stream(self) -> bool {
        self.0 & (Self::REMOTE_CLOSED.0 | Self::REMOTE_OPEN.0) != 0
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Data bytes that follow the header.
    pub length: u32,
    /// The stream; odd, because clients open them.
    pub stream: u32,
    /// What the frame is.
    pub kind: Kind,
    /// Its flags.
    pub flags: Flags,
}

impl Header {
    /// The header as it is sent.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8] = self.kind.into();
        bytes[9] = self.flags.0;
        bytes
    }

    /// Takes a header off `bytes`; `None` (and nothing taken) when there are not ten of them.
    fn take(bytes: &mut BytesMut) -> Option<Self> {
        if bytes.len() < HEADER_LEN {
            return None;
        }
        Some(Self {
            length: bytes.get_u32(),
            stream: bytes.get_u32(),
            kind: bytes.get_u8().into(),
            flags: Flags(bytes.get_u8()),
        })
    }
}

/// A received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its data, `header.length` bytes.
    pub data: Bytes,
}

/// What a decoder found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole frame.
    Frame(Frame),
    /// A frame whose data is too long; the decoder skips the data as it arrives.
    Oversize(Header),
}

/// Bytes that cannot be ttrpc. The position in the stream is lost, so the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {length} bytes: the first byte of a frame is reserved and must be zero")]
pub struct NotTtrpc {
    /// The length that the header claims.
    pub length: u32,
}

/// A message that no frame can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message of {length} bytes exceeds the maximum of {MAX_MESSAGE}")]
pub struct TooLarge {
    /// Its encoded length in bytes.
    pub length: usize,
}

/// Finds frames in bytes that arrive in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Data(Header),
    Skip(usize),
}

impl Decoder {
    /// Takes the next frame off the front of `buffer`; `None` means that more bytes are needed.
    ///
    /// # Errors
    ///
    /// A length whose first byte is not zero (16 MiB or more) is something else than ttrpc: [`NotTtrpc`].
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Decoded>, NotTtrpc> {
        loop {
            match self.state {
                State::Header => {
                    let Some(header) = Header::take(buffer) else { return Ok(None) };
                    let length = header.length as usize;
                    if length >= 1 << 24 {
                        return Err(NotTtrpc { length: header.length });
                    }
                    if length > MAX_MESSAGE {
                        self.state = State::Skip(length);
                        return Ok(Some(Decoded::Oversize(header)));
                    }
                    self.state = State::Data(header);
                }
                State::Data(header) => {
                    if buffer.len() < header.length as usize {
                        return Ok(None);
                    }
                    self.state = State::Header;
                    let data = buffer.split_to(header.length as usize).freeze();
                    return Ok(Some(Decoded::Frame(Frame { header, data })));
                }
                State::Skip(left) => {
                    let skipped = left.min(buffer.len());
                    buffer.advance(skipped);
                    if skipped < left {
                        self.state = State::Skip(left - skipped);
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
            }
        }
    }

    /// Whether the bytes so far end where a frame ends, given what is left in the `buffer`.
    pub fn is_between_frames(&self, buffer: &BytesMut) -> bool {
        matches!(self.state, State::Header) && buffer.is_empty()
    }

    /// How many more bytes to make room for, given what is in the `buffer`; grows with what has arrived.
    pub(crate) fn room(&self, buffer: &BytesMut) -> usize {
        let missing = match self.state {
            State::Header => 0,
            State::Data(header) => (header.length as usize).saturating_sub(buffer.len()),
            State::Skip(left) => left.min(GROWTH),
        };
        missing.min(buffer.len().max(GROWTH))
    }
}

/// Encodes `message` as one frame, header included.
///
/// # Errors
///
/// [`TooLarge`] when the message is longer than [`MAX_MESSAGE`].
pub fn encode<M: Message>(stream: u32, kind: Kind, flags: Flags, message: &M) -> Result<BytesMut, TooLarge> {
    let length = message.encoded_len();
    let header = match u32::try_from(length) {
        Ok(length) if length as usize <= MAX_MESSAGE => Header { length, stream, kind, flags },
        _ => return Err(TooLarge { length }),
    };
    let mut frame = BytesMut::with_capacity(HEADER_LEN + length);
    frame.put_slice(&header.encode());
    message.encode_raw(&mut frame);
    Ok(frame)
}

/// A frame with bytes that are already encoded.
///
/// # Errors
///
/// [`TooLarge`] when `data` is longer than [`MAX_MESSAGE`].
pub fn encode_bytes(stream: u32, kind: Kind, flags: Flags, data: &[u8]) -> Result<BytesMut, TooLarge> {
    let header = match u32::try_from(data.len()) {
        Ok(length) if data.len() <= MAX_MESSAGE => Header { length, stream, kind, flags },
        _ => return Err(TooLarge { length: data.len() }),
    };
    let mut frame = BytesMut::with_capacity(HEADER_LEN + data.len());
    frame.put_slice(&header.encode());
    frame.put_slice(data);
    Ok(frame)
}

/// The frame that ends a direction of `stream` without a message.
pub fn end(stream: u32) -> Bytes {
    let header = Header { length: 0, stream, kind: Kind::Data, flags: Flags::END };
    Bytes::copy_from_slice(&header.encode())
}

/// Writes the stream id into a frame that was encoded before its stream was known.
pub(crate) fn set_stream(frame: &mut BytesMut, stream: u32) {
    frame[4..8].copy_from_slice(&stream.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_all(chunks: &[&[u8]]) -> (Vec<Decoded>, Option<NotTtrpc>) {
        let (mut decoder, mut buffer, mut found) = (Decoder::default(), BytesMut::new(), Vec::new());
        for chunk in chunks {
            buffer.put_slice(chunk);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(decoded)) => found.push(decoded),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    fn check(bytes: &[u8], expected: &[Decoded]) {
        assert_eq!(decode_all(&[bytes]).0, expected, "in one piece");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode_all(&single).0, expected, "byte by byte");
    }

    #[test]
    fn header_layout_is_the_one_of_the_specification() {
        let header = Header { length: 0x0001_0203, stream: 0x0a0b_0c0d, kind: Kind::Data, flags: Flags::END };
        assert_eq!(header.encode(), [0, 1, 2, 3, 0x0a, 0x0b, 0x0c, 0x0d, 3, 5]);
    }

    #[test]
    fn frames_are_found() {
        let frame = |stream, kind, flags, data: &'static [u8]| {
            let header = Header { length: data.len() as u32, stream, kind, flags: Flags(flags) };
            Decoded::Frame(Frame { header, data: Bytes::from_static(data) })
        };
        check(&[], &[]);
        check(&[0, 0, 0, 2, 0, 0, 0, 1, 1], &[]);
        check(&[0, 0, 0, 0, 0, 0, 0, 1, 3, 5], &[frame(1, Kind::Data, 5, b"")]);
        check(&[0, 0, 0, 2, 0, 0, 0, 1, 1, 0, b'h'], &[]);
        check(&[0, 0, 0, 2, 0, 0, 0, 1, 1, 0, b'h', b'i'], &[frame(1, Kind::Request, 0, b"hi")]);
        check(
            &[0, 0, 0, 1, 0, 0, 0, 3, 2, 0, b'a', 0, 0, 0, 1, 0, 0, 0, 5, 9, 0xff, b'b'],
            &[frame(3, Kind::Response, 0, b"a"), frame(5, Kind::Other(9), 0xff, b"b")],
        );
    }

    #[test]
    fn oversize_data_is_skipped_and_the_next_frame_is_found() {
        let length = MAX_MESSAGE as u32 + 1;
        let oversize = Header { length, stream: 7, kind: Kind::Request, flags: Flags::NONE };
        let next = Header { length: 1, stream: 9, kind: Kind::Request, flags: Flags::NONE };
        let mut bytes = oversize.encode().to_vec();
        bytes.resize(HEADER_LEN + length as usize, 0xff);
        bytes.extend_from_slice(&next.encode());
        bytes.push(b'x');
        let expected =
            [Decoded::Oversize(oversize), Decoded::Frame(Frame { header: next, data: Bytes::from_static(b"x") })];
        let chunks: Vec<&[u8]> = bytes.chunks(1000).collect();
        assert_eq!(decode_all(&chunks), (expected.to_vec(), None));
    }

    #[test]
    fn a_length_with_a_first_byte_is_not_ttrpc() {
        assert_eq!(decode_all(&[b"GET / HTTP/1.1"]).1, Some(NotTtrpc { length: 0x4745_5420 }));
        assert_eq!(decode_all(&[&[0x00, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0]]).1, None);
    }

    #[test]
    fn the_largest_message_is_encoded_and_one_byte_more_is_not() {
        let largest = vec![0; MAX_MESSAGE];
        let frame = encode_bytes(1, Kind::Data, Flags::NONE, &largest).unwrap();
        assert_eq!(frame.len(), HEADER_LEN + MAX_MESSAGE);
        let larger = vec![0; MAX_MESSAGE + 1];
        let refused = encode_bytes(1, Kind::Data, Flags::NONE, &larger);
        assert_eq!(refused, Err(TooLarge { length: MAX_MESSAGE + 1 }));
    }

    #[test]
    fn a_header_alone_reserves_little() {
        let mut decoder = Decoder::default();
        let header = Header { length: MAX_MESSAGE as u32, stream: 1, kind: Kind::Data, flags: Flags::NONE };
        let mut buffer = BytesMut::from(&header.encode()[..]);
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        assert_eq!(decoder.room(&buffer), GROWTH);
        buffer.resize(1 << 20, 0);
        assert_eq!(decoder.room(&buffer), 1 << 20, "grows with what has arrived");
        buffer.resize(MAX_MESSAGE - 3, 0);
        assert_eq!(decoder.room(&buffer), 3);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_chunking_changes_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            zeroed in any::<bool>(),
            size in 1usize..64,
        ) {
            let mut bytes = bytes;
            if zeroed && bytes.len() >= 3 {
                bytes[..3].fill(0); // a plausible length, so that the rest of the decoder is reached
            }
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(decode_all(&chunks), decode_all(&[&bytes]));
        }

        #[test]
        fn what_is_encoded_is_decoded(
            frames in proptest::collection::vec(
                (any::<u32>(), any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..8),
            size in 1usize..300,
        ) {
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for (stream, kind, flags, data) in frames {
                let (kind, flags) = (Kind::from(kind), Flags(flags));
                bytes.extend_from_slice(&encode_bytes(stream, kind, flags, &data).unwrap());
                let header = Header { length: data.len() as u32, stream, kind, flags };
                expected.push(Decoded::Frame(Frame { header, data: data.into() }));
            }
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(decode_all(&chunks), (expected, None));
        }
    }
}
