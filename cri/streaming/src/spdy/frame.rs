//! The frames of SPDY/3.1 as bytes. No I/O.
//!
//! A control frame starts with a set bit, a version and a type; a data frame with the number of its stream. Then come
//! eight bits of flags and a length of 24 bits. Control frames are decoded whole; the payload of a data frame comes in
//! the pieces that arrive, so that a frame of 16 MiB needs no buffer of that size.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    fault::Fault,
    headers::{Deflater, Headers, Inflater},
};

/// The largest control frame that is read.
pub const MAX_CONTROL: usize = 32 << 10;
/// The largest piece of data that a decoder hands out at once.
pub const MAX_PIECE: usize = 32 << 10;
/// The head of every frame.
const HEAD: usize = 8;
const VERSION: u16 = 3;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

/// The top bit of a stream's number is reserved.
const STREAM: u32 = 0x7fff_ffff;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// The stream: odd for a client's.
        stream: u32,
        /// The stream that it belongs to; 0 for none.
        associated: u32,
        /// 0 is the most urgent, 7 the least.
        priority: u8,
        /// The sender will send no data on it.
        fin: bool,
        /// The receiver may send no data on it.
        unidirectional: bool,
        /// What it is for.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        stream: u32,
        /// The sender will send no data on it.
        fin: bool,
        /// Anything about it.
        headers: Headers,
    },
    /// Ends a stream in both directions.
    RstStream {
        /// The stream.
        stream: u32,
        /// Why; see [`reset`].
        status: u32,
    },
    /// Facts about the connection.
    Settings(Vec<Setting>),
    /// Wants the same frame back.
    Ping(u32),
    /// The sender accepts no more streams.
    GoAway {
        /// The last stream that it accepted.
        last: u32,
        /// Why; see [`away`].
        status: u32,
    },
    /// More headers.
    Headers {
        /// The stream.
        stream: u32,
        /// The sender will send no more data on it.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// Lets the receiver send more.
    WindowUpdate {
        /// The stream; 0 for all together.
        stream: u32,
        /// How many bytes more.
        delta: u32,
    },
    /// Data, or a piece of a data frame.
    Data {
        /// The stream.
        stream: u32,
        /// The sender will send no more; set on the last piece of a frame only.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
}

/// One of the facts of [`Frame::Settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whether to remember it.
    pub flags: u8,
    /// What it is about, 24 bits; see [`INITIAL_WINDOW_SIZE`].
    pub id: u32,
    /// The value.
    pub value: u32,
}

/// The setting for the send window of new streams.
pub const INITIAL_WINDOW_SIZE: u32 = 7;

/// Why a stream is reset.
pub mod reset {
    /// It is against the protocol.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// It is not wanted.
    pub const REFUSED_STREAM: u32 = 3;
    /// It is not needed any more.
    pub const CANCEL: u32 = 5;
}

/// Why a peer goes away.
pub mod away {
    /// It is done.
    pub const OK: u32 = 0;
    /// The other side is against the protocol.
    pub const PROTOCOL_ERROR: u32 = 1;
}

/// Reads frames.
pub struct Decoder {
    inflater: Inflater,
    /// The data frame that is being read: its stream, whether it is the last one, and what is missing of it.
    open: Option<(u32, bool, usize)>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflater: Inflater::new(), open: None }
    }
}

impl Decoder {
    /// Takes a frame, or a piece of data, from the front of the buffer; none when more bytes are needed. Control frames
    /// of unknown types are skipped.
    ///
    /// # Errors
    /// What the peer did wrong; nothing can be read after that.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        loop {
            if self.open.is_some() {
                return Ok(self.piece(buffer));
            }
            let Some(head) = buffer.first_chunk::<HEAD>().copied() else { return Ok(None) };
            let [a, b, c, d, flags, length @ ..] = head;
            let first = u32::from_be_bytes([a, b, c, d]);
            let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
            if first & !STREAM == 0 {
                if first == 0 {
                    return Err(Fault::ZeroStream("DATA"));
                }
                buffer.advance(HEAD);
                self.open = Some((first, flags & FIN != 0, length));
                continue;
            }
            let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
            if version != VERSION {
                return Err(Fault::Version(version));
            }
            if length > MAX_CONTROL {
                return Err(Fault::TooLong(length));
            }
            if buffer.len() < HEAD + length {
                return Ok(None);
            }
            buffer.advance(HEAD);
            let payload = buffer.split_to(length);
            if let Some(frame) = self.control(kind, flags, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn piece(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        let (stream, last, missing) = self.open?;
        if buffer.is_empty() && missing > 0 {
            return None;
        }
        let data = buffer.split_to(missing.min(buffer.len()).min(MAX_PIECE)).freeze();
        let missing = missing - data.len();
        self.open = (missing > 0).then_some((stream, last, missing));
        Some(Frame::Data { stream, fin: last && missing == 0, data })
    }

    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Option<Frame>, Fault> {
        let fin = flags & FIN != 0;
        Ok(Some(match kind {
            SYN_STREAM => {
                let (head, block) = split::<10>("SYN_STREAM", payload)?;
                let headers = self.inflater.read(block)?;
                let [s0, s1, s2, s3, a0, a1, a2, a3, priority, _slot] = *head;
                Frame::SynStream {
                    stream: named("SYN_STREAM", [s0, s1, s2, s3])?,
                    associated: u32::from_be_bytes([a0, a1, a2, a3]) & STREAM,
                    priority: priority >> 5,
                    fin,
                    unidirectional: flags & UNIDIRECTIONAL != 0,
                    headers,
                }
            }
            SYN_REPLY => {
                let (stream, block) = split::<4>("SYN_REPLY", payload)?;
                let headers = self.inflater.read(block)?;
                Frame::SynReply { stream: named("SYN_REPLY", *stream)?, fin, headers }
            }
            HEADERS => {
                let (stream, block) = split::<4>("HEADERS", payload)?;
                let headers = self.inflater.read(block)?;
                Frame::Headers { stream: named("HEADERS", *stream)?, fin, headers }
            }
            RST_STREAM => {
                let [stream, status] = pair("RST_STREAM", payload)?;
                Frame::RstStream { stream: named("RST_STREAM", stream)?, status: u32::from_be_bytes(status) }
            }
            GOAWAY => {
                let [last, status] = pair("GOAWAY", payload)?;
                Frame::GoAway { last: u32::from_be_bytes(last) & STREAM, status: u32::from_be_bytes(status) }
            }
            WINDOW_UPDATE => {
                let [stream, delta] = pair("WINDOW_UPDATE", payload)?;
                let number = |bytes| u32::from_be_bytes(bytes) & STREAM;
                Frame::WindowUpdate { stream: number(stream), delta: number(delta) }
            }
            PING => {
                let id = payload.try_into().map_err(|_| Fault::Length { frame: "PING", length: payload.len() })?;
                Frame::Ping(u32::from_be_bytes(id))
            }
            SETTINGS => Frame::Settings(settings(payload)?),
            _ => return Ok(None),
        }))
    }
}

fn split<'a, const N: usize>(frame: &'static str, payload: &'a [u8]) -> Result<(&'a [u8; N], &'a [u8]), Fault> {
    payload.split_first_chunk::<N>().ok_or(Fault::Length { frame, length: payload.len() })
}

fn pair(frame: &'static str, payload: &[u8]) -> Result<[[u8; 4]; 2], Fault> {
    match *payload {
        [a, b, c, d, e, f, g, h] => Ok([[a, b, c, d], [e, f, g, h]]),
        _ => Err(Fault::Length { frame, length: payload.len() }),
    }
}

/// A stream's number, which must not be 0.
fn named(frame: &'static str, stream: [u8; 4]) -> Result<u32, Fault> {
    match u32::from_be_bytes(stream) & STREAM {
        0 => Err(Fault::ZeroStream(frame)),
        stream => Ok(stream),
    }
}

fn settings(payload: &[u8]) -> Result<Vec<Setting>, Fault> {
    let wrong = Fault::Length { frame: "SETTINGS", length: payload.len() };
    let (count, entries) = split::<4>("SETTINGS", payload)?;
    let (entries, rest) = entries.as_chunks::<8>();
    if usize::try_from(u32::from_be_bytes(*count)) != Ok(entries.len()) || !rest.is_empty() {
        return Err(wrong);
    }
    let entry = |entry: &[u8; 8]| {
        let [flags, a, b, c, value @ ..] = *entry;
        Setting { flags, id: u32::from_be_bytes([0, a, b, c]), value: u32::from_be_bytes(value) }
    };
    Ok(entries.iter().map(entry).collect())
}

/// Writes frames.
pub struct Encoder {
    deflater: Deflater,
    block: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { deflater: Deflater::new(), block: Vec::new() }
    }
}

impl Encoder {
    /// Appends a frame. Its lengths have to fit: data and header blocks are far below 16 MiB.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        match frame {
            Frame::SynStream { stream, associated, priority, fin, unidirectional, headers } => {
                let block = self.compress(headers);
                let flags = flag(*fin, FIN) | flag(*unidirectional, UNIDIRECTIONAL);
                control(SYN_STREAM, flags, 10 + block.len(), out);
                out.put_u32(*stream);
                out.put_u32(*associated);
                out.put_u8(priority << 5);
                out.put_u8(0);
                out.put_slice(block);
            }
            Frame::SynReply { stream, fin, headers } => self.stream(SYN_REPLY, *stream, *fin, headers, out),
            Frame::Headers { stream, fin, headers } => self.stream(HEADERS, *stream, *fin, headers, out),
            Frame::RstStream { stream, status } => numbers(RST_STREAM, &[*stream, *status], out),
            Frame::Ping(id) => numbers(PING, &[*id], out),
            Frame::GoAway { last, status } => numbers(GOAWAY, &[*last, *status], out),
            Frame::WindowUpdate { stream, delta } => numbers(WINDOW_UPDATE, &[*stream, *delta], out),
            Frame::Settings(settings) => {
                control(SETTINGS, 0, 4 + 8 * settings.len(), out);
                out.put_u32(u32::try_from(settings.len()).unwrap_or(u32::MAX));
                for setting in settings {
                    out.put_u32(u32::from(setting.flags) << 24 | setting.id & 0xff_ffff);
                    out.put_u32(setting.value);
                }
            }
            Frame::Data { stream, fin, data } => {
                out.put_u32(*stream);
                length(flag(*fin, FIN), data.len(), out);
                out.put_slice(data);
            }
        }
    }

    fn compress(&mut self, headers: &Headers) -> &[u8] {
        self.block.clear();
        self.deflater.write(headers, &mut self.block);
        &self.block
    }

    fn stream(&mut self, kind: u16, stream: u32, fin: bool, headers: &Headers, out: &mut BytesMut) {
        let block = self.compress(headers);
        control(kind, if fin { FIN } else { 0 }, 4 + block.len(), out);
        out.put_u32(stream);
        out.put_slice(block);
    }
}

fn control(kind: u16, flags: u8, size: usize, out: &mut BytesMut) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    length(flags, size, out);
}

fn length(flags: u8, size: usize, out: &mut BytesMut) {
    debug_assert!(size < 1 << 24);
    out.put_u32(u32::from(flags) << 24 | u32::try_from(size).unwrap_or(0) & 0xff_ffff);
}

fn numbers(kind: u16, numbers: &[u32], out: &mut BytesMut) {
    control(kind, 0, 4 * numbers.len(), out);
    numbers.iter().for_each(|number| out.put_u32(*number));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8], size: usize) -> (Vec<Frame>, Option<Fault>) {
        let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(size.max(1)) {
            buffer.put_slice(piece);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(fault) => return (frames, Some(fault)),
                }
            }
        }
        (frames, None)
    }

    #[test]
    fn frames_have_their_published_form() {
        let check = |bytes: &[u8], frame: Frame| {
            let mut out = BytesMut::new();
            Encoder::default().encode(&frame, &mut out);
            assert_eq!(&out[..], bytes, "{frame:?}");
            let (frames, fault) = decode(bytes, 3);
            assert_eq!((joined(frames), fault), (vec![frame], None));
        };
        check(&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 1], Frame::RstStream { stream: 5, status: 1 });
        check(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9], Frame::Ping(9));
        check(&[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 0], Frame::GoAway { last: 3, status: away::OK });
        check(&[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0], Frame::WindowUpdate { stream: 0, delta: 65536 });
        let settings = vec![Setting { flags: 1, id: INITIAL_WINDOW_SIZE, value: 256 }];
        check(&[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 1, 0, 0, 7, 0, 0, 1, 0], Frame::Settings(settings));
        check(&[0, 0, 0, 7, 1, 0, 0, 0], Frame::Data { stream: 7, fin: true, data: Bytes::new() });
        let data = Bytes::from_static(b"ab");
        check(&[0, 0, 0, 7, 0, 0, 0, 2, b'a', b'b'], Frame::Data { stream: 7, fin: false, data });
    }

    #[test]
    fn what_is_against_the_protocol_is_a_fault() {
        let check = |bytes: &[u8], want: Fault| assert_eq!(decode(bytes, 100).1, Some(want), "{bytes:?}");
        check(&[0x80, 2, 0, 6, 0, 0, 0, 4], Fault::Version(2));
        check(&[0x80, 3, 0, 1, 0, 1, 0, 0], Fault::TooLong(1 << 16));
        check(&[0, 0, 0, 0, 0, 0, 0, 0], Fault::ZeroStream("DATA"));
        check(&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1], Fault::ZeroStream("RST_STREAM"));
        check(&[0x80, 3, 0, 6, 0, 0, 0, 0], Fault::Length { frame: "PING", length: 0 });
        check(&[0x80, 3, 0, 1, 0, 0, 0, 1, 0], Fault::Length { frame: "SYN_STREAM", length: 1 });
        check(&[0x80, 3, 0, 4, 0, 0, 0, 4, 255, 0, 0, 0], Fault::Length { frame: "SETTINGS", length: 4 });
        check(&[0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, 1, 9, 9], Fault::Compression);
    }

    #[test]
    fn unknown_control_frames_are_skipped() {
        let bytes = [&[0x80, 3, 0, 5, 0, 0, 0, 1, 9][..], &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]].concat();
        assert_eq!(decode(&bytes, 2), (vec![Frame::Ping(1)], None));
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let stream = 1..=STREAM;
        let headers = prop::collection::vec(("[a-z-]{1,12}", "[ -~]{0,40}"), 0..5);
        let data = prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let setting = (any::<u8>(), 0..1_u32 << 24, any::<u32>());
        let setting = setting.prop_map(|(flags, id, value)| Setting { flags, id, value });
        prop_oneof![
            (stream.clone(), 0..=STREAM, 0..8_u8, any::<(bool, bool)>(), headers.clone()).prop_map(
                |(stream, associated, priority, (fin, unidirectional), headers)| {
                    Frame::SynStream { stream, associated, priority, fin, unidirectional, headers }
                }
            ),
            (stream.clone(), any::<bool>(), headers.clone()).prop_map(|(stream, fin, headers)| Frame::SynReply {
                stream,
                fin,
                headers
            }),
            (stream.clone(), any::<bool>(), headers).prop_map(|(stream, fin, headers)| Frame::Headers {
                stream,
                fin,
                headers
            }),
            (stream.clone(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
            prop::collection::vec(setting, 0..4).prop_map(Frame::Settings),
            any::<u32>().prop_map(Frame::Ping),
            (0..=STREAM, any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (0..=STREAM, 0..=STREAM).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
            (stream, any::<bool>(), data).prop_map(|(stream, fin, data)| Frame::Data { stream, fin, data }),
        ]
    }

    /// Puts the pieces of data frames together again.
    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut all: Vec<Frame> = Vec::new();
        for frame in frames {
            match (all.last_mut(), frame) {
                (
                    Some(Frame::Data { stream, fin: ended @ false, data }),
                    Frame::Data { stream: same, fin, data: more },
                ) if *stream == same => {
                    *data = [&data[..], &more].concat().into();
                    *ended = fin;
                }
                (_, frame) => all.push(frame),
            }
        }
        all
    }

    proptest! {
        #[test]
        fn frames_come_back_whatever_the_pieces(frames in prop::collection::vec(any_frame(), 0..12), size in 1..80_usize) {
            let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
            frames.iter().for_each(|frame| encoder.encode(frame, &mut out));
            let (back, fault) = decode(&out, size);
            prop_assert_eq!(fault, None);
            prop_assert_eq!(joined(back), joined(frames));
        }

        #[test]
        fn any_bytes_mean_the_same_in_any_pieces(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1..40_usize) {
            let (whole, pieces) = (decode(&bytes, bytes.len()), decode(&bytes, size));
            prop_assert_eq!(joined(whole.0), joined(pieces.0));
            prop_assert_eq!(whole.1, pieces.1);
        }
    }
}
