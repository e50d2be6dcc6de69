//! Streams in a WebSocket: the first byte of each message is the number of a stream. From version 5 on a message of
//! the byte 255 and a stream's number says that the client closed its side of that stream.

use std::collections::HashMap;

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use crate::{
    idle::Idle,
    session::{Gone, Input, Output, Sink},
};

/// The stream number that means the end of another one.
const CLOSE: u8 = 255;
/// Pieces that wait for their user.
const WAITING: usize = 16;
/// The largest piece, both ways. Clients read with buffers of this size.
const MAX_PIECE: usize = 32 << 10;
/// Messages that wait to be written.
const UNSENT: usize = 4;

/// How messages carry bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Binary messages: the stream's number, then the bytes.
    Binary,
    /// Text messages: the stream's number as a digit, then base64.
    Base64,
}

/// What the server does with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// What comes is thrown away.
    Ignored,
    /// Reads.
    Read,
    /// Writes, or reads and writes.
    Write {
        /// Reads as well.
        read: bool,
    },
}

/// A WebSocket with streams in it. Dropping it ends it at once.
pub(crate) struct Channels {
    inputs: HashMap<u8, Input>,
    messages: mpsc::Sender<Message>,
    codec: Codec,
    gone: CancellationToken,
    task: JoinHandle<()>,
}

impl Channels {
    /// Starts to read. `closes` says whether the client can close single streams.
    pub(crate) fn start<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        socket: WebSocketStream<S>,
        codec: Codec,
        closes: bool,
        channels: &[Channel],
        idle: Idle,
    ) -> Self {
        let (messages, unsent) = mpsc::channel(UNSENT);
        let (mut inputs, mut users) = (HashMap::new(), Vec::new());
        for (number, channel) in (0..CLOSE).zip(channels) {
            let read = matches!(channel, Channel::Read | Channel::Write { read: true });
            users.push(read.then(|| {
                let (user, pieces) = mpsc::channel(WAITING);
                inputs.insert(number, Input::new(pieces, None));
                user
            }));
        }
        let gone = CancellationToken::new();
        let ended = gone.clone();
        let (to, from) = socket.split();
        let task = tokio::spawn(async move {
            let reading = read(from, codec, closes, users, &ended, &idle);
            let writing = write(to, unsent, &idle);
            tokio::select! {
                () = both(reading, writing) => {}
                () = idle.expired() => tracing::debug!("idle WebSocket ended"),
            }
            ended.cancel();
        });
        Self { inputs, messages, codec, gone, task }
    }

    /// The client's side of a channel that is read; each one once.
    pub(crate) fn input(&mut self, channel: u8) -> Option<Input> {
        self.inputs.remove(&channel)
    }

    /// Our side of a channel.
    pub(crate) fn output(&self, channel: u8) -> Output {
        Output::new(self.sending(channel))
    }

    /// Sends one message, which may be empty.
    pub(crate) async fn send(&self, channel: u8, data: &[u8]) -> Result<(), Gone> {
        self.sending(channel).message(data).await
    }

    /// Cancelled when the client is gone.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Says good-bye after everything else, and waits until the client has gone, so that all that was sent arrives.
    pub(crate) async fn finish(mut self) {
        let _ = self.messages.send(Message::Close(Some(normal()))).await;
        self.inputs.clear();
        let _ = (&mut self.task).await;
    }

    fn sending(&self, channel: u8) -> Sending {
        Sending { channel, codec: self.codec, messages: self.messages.clone(), gone: self.gone.clone() }
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.gone.cancel();
        self.task.abort();
    }
}

fn normal() -> tokio_tungstenite::tungstenite::protocol::CloseFrame {
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
    CloseFrame { code: CloseCode::Normal, reason: String::new().into() }
}

struct Sending {
    channel: u8,
    codec: Codec,
    messages: mpsc::Sender<Message>,
    gone: CancellationToken,
}

impl Sending {
    async fn message(&self, data: &[u8]) -> Result<(), Gone> {
        let message = encode(self.codec, self.channel, data);
        tokio::select! {
            biased;
            () = self.gone.cancelled() => Err(Gone),
            sent = self.messages.send(message) => sent.map_err(|_| Gone),
        }
    }
}

#[async_trait]
impl Sink for Sending {
    async fn send(&mut self, data: Bytes) -> Result<(), Gone> {
        for piece in data.chunks(MAX_PIECE) {
            self.message(piece).await?;
        }
        Ok(())
    }

    /// There is no message for it: the end of the WebSocket is the end of all streams.
    async fn close(&mut self) -> Result<(), Gone> {
        Ok(())
    }
}

fn encode(codec: Codec, channel: u8, data: &[u8]) -> Message {
    match codec {
        Codec::Binary => {
            let mut message = BytesMut::with_capacity(1 + data.len());
            message.put_u8(channel);
            message.put_slice(data);
            Message::Binary(message.freeze())
        }
        Codec::Base64 => {
            let mut text = String::from(char::from(b'0'.wrapping_add(channel)));
            BASE64_STANDARD.encode_string(data, &mut text);
            Message::Text(text.into())
        }
    }
}

/// What a message says: the channel and its bytes, or the end of one.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Data(u8, Bytes),
    Close(u8),
    /// Nothing that can be used.
    Nothing,
}

fn decode(codec: Codec, closes: bool, mut message: Bytes) -> Said {
    if message.is_empty() {
        return Said::Nothing;
    }
    let first = message.split_to(1)[0];
    match (codec, first) {
        (Codec::Binary, CLOSE) if closes => match message[..] {
            [channel] => Said::Close(channel),
            _ => Said::Nothing,
        },
        (Codec::Binary, channel) => Said::Data(channel, message),
        (Codec::Base64, digit) => match BASE64_STANDARD.decode(&message) {
            Ok(data) => Said::Data(digit.wrapping_sub(b'0'), data.into()),
            Err(_) => Said::Nothing,
        },
    }
}

/// What a message says; for fuzz targets.
pub(crate) fn understand(base64: bool, closes: bool, message: &[u8]) -> Option<(u8, Option<Vec<u8>>)> {
    let codec = if base64 { Codec::Base64 } else { Codec::Binary };
    match decode(codec, closes, Bytes::copy_from_slice(message)) {
        Said::Data(channel, data) => Some((channel, Some(data.into()))),
        Said::Close(channel) => Some((channel, None)),
        Said::Nothing => None,
    }
}

/// A message; for fuzz targets.
pub(crate) fn carry(base64: bool, channel: u8, data: &[u8]) -> Vec<u8> {
    let codec = if base64 { Codec::Base64 } else { Codec::Binary };
    encode(codec, channel, data).into_data().into()
}

async fn both(reading: impl Future<Output = ()>, writing: impl Future<Output = bool>) {
    tokio::pin!(reading, writing);
    tokio::select! {
        () = &mut reading => {}
        // After our good-bye the client is read until its own.
        closed = &mut writing => if closed { reading.await },
    }
}

/// Reads until the client is gone.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    mut from: SplitStream<WebSocketStream<S>>,
    codec: Codec,
    closes: bool,
    mut users: Vec<Option<mpsc::Sender<Bytes>>>,
    gone: &CancellationToken,
    idle: &Idle,
) {
    while let Some(message) = from.next().await {
        idle.touch();
        let message = match message {
            Ok(Message::Binary(message)) => message,
            Ok(Message::Text(message)) => message.into(),
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, "reading a WebSocket");
                break;
            }
        };
        match decode(codec, closes, message) {
            Said::Data(channel, mut data) => {
                let Some(Some(user)) = users.get(usize::from(channel)) else { continue };
                while !data.is_empty() {
                    let piece = data.split_to(data.len().min(MAX_PIECE));
                    // Waiting here is what holds a fast client back.
                    if user.send(piece).await.is_err() {
                        break;
                    }
                }
            }
            Said::Close(channel) => {
                if let Some(user) = users.get_mut(usize::from(channel)) {
                    *user = None;
                }
            }
            Said::Nothing => {}
        }
    }
    gone.cancel();
}

/// Writes until a good-bye is written; false when the client cannot be written to.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    mut to: SplitSink<WebSocketStream<S>, Message>,
    mut unsent: mpsc::Receiver<Message>,
    idle: &Idle,
) -> bool {
    while let Some(message) = unsent.recv().await {
        let last = matches!(message, Message::Close(_));
        if let Err(error) = to.send(message).await {
            tracing::debug!(%error, "writing to a WebSocket");
            return false;
        }
        idle.touch();
        if last {
            break;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(message: Message) -> Bytes {
        match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => panic!("neither text nor binary"),
        }
    }

    #[test]
    fn messages_name_their_channel() {
        let check = |codec, closes, message: &'static [u8], want: Said| {
            assert_eq!(decode(codec, closes, Bytes::from_static(message)), want, "{message:?}");
        };
        check(Codec::Binary, false, b"\x00abc", Said::Data(0, Bytes::from_static(b"abc")));
        check(Codec::Binary, false, b"\xff\x00", Said::Data(255, Bytes::from_static(b"\0")));
        check(Codec::Binary, true, b"\xff\x00", Said::Close(0));
        check(Codec::Binary, true, b"\xff", Said::Nothing);
        check(Codec::Binary, true, b"\xff\x00\x01", Said::Nothing);
        check(Codec::Binary, true, b"", Said::Nothing);
        check(Codec::Base64, false, b"0Zm9vCg==", Said::Data(0, Bytes::from_static(b"foo\n")));
        check(Codec::Base64, false, b"0***", Said::Nothing);
        assert_eq!(&bytes(encode(Codec::Base64, 1, b"\n"))[..], b"1Cg==");
        assert_eq!(&bytes(encode(Codec::Binary, 3, b""))[..], b"\x03");
    }

    proptest! {
        #[test]
        fn messages_come_back(channel in 0..9_u8, data in prop::collection::vec(any::<u8>(), 0..300), text in any::<bool>()) {
            let codec = if text { Codec::Base64 } else { Codec::Binary };
            let back = decode(codec, true, bytes(encode(codec, channel, &data)));
            prop_assert_eq!(back, Said::Data(channel, data.into()));
        }

        #[test]
        fn any_message_is_taken(message in prop::collection::vec(any::<u8>(), 0..40), text in any::<bool>(), closes in any::<bool>()) {
            let codec = if text { Codec::Base64 } else { Codec::Binary };
            decode(codec, closes, message.into());
        }
    }
}
