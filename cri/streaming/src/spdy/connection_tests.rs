//! A connection against a client made of the codec.

use std::time::Duration;

use tokio::io::DuplexStream;

use super::*;
use crate::spdy::{
    frame::{INITIAL_WINDOW_SIZE, Setting},
    stream::Stream,
};

struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Client {
    async fn send(&mut self, frame: Frame) {
        let mut out = BytesMut::new();
        self.encoder.encode(&frame, &mut out);
        self.io.write_all(&out).await.unwrap();
    }

    async fn open(&mut self, stream: u32) {
        let headers = vec![("streamtype".to_owned(), format!("number {stream}"))];
        let (associated, priority, fin, unidirectional) = (0, 0, false, false);
        self.send(Frame::SynStream { stream, associated, priority, fin, unidirectional, headers }).await;
    }

    async fn data(&mut self, stream: u32, data: &'static [u8], fin: bool) {
        self.send(Frame::Data { stream, fin, data: Bytes::from_static(data) }).await;
    }

    /// The next frame; none at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            // Room for all that was written at once, so that it is not cut here.
            self.buffer.reserve(16 << 10);
            if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

fn reply(stream: u32) -> Option<Frame> {
    Some(Frame::SynReply { stream, fin: false, headers: Vec::new() })
}

fn data(stream: u32, text: &'static str, fin: bool) -> Option<Frame> {
    Some(Frame::Data { stream, fin, data: Bytes::from_static(text.as_bytes()) })
}

fn connect(idle: Duration) -> (Client, Connection, mpsc::Receiver<Incoming>) {
    let (near, far) = tokio::io::duplex(16 << 10);
    let client = Client { io: near, encoder: Encoder::default(), decoder: Decoder::default(), buffer: BytesMut::new() };
    let (connection, incoming) = serve(far, Idle::new(idle));
    (client, connection, incoming)
}

/// A connection with stream 1 open.
async fn opened() -> (Client, Connection, mpsc::Receiver<Incoming>, Stream) {
    let (mut client, connection, mut incoming) = connect(Duration::ZERO);
    client.open(1).await;
    let stream = incoming.recv().await.unwrap();
    assert_eq!((stream.number(), stream.header("streamtype"), stream.header("port")), (1, "number 1", ""));
    let stream = stream.accept();
    assert_eq!(client.next().await, reply(1));
    (client, connection, incoming, stream)
}

#[tokio::test]
async fn both_sides_close_for_themselves() {
    let (mut client, connection, _incoming, mut stream) = opened().await;
    client.data(1, b"question", false).await;
    client.data(1, b"", true).await;
    assert_eq!(stream.input.next().await.unwrap(), "question");
    assert_eq!(stream.input.next().await, None);
    assert!(!stream.cancelled.is_cancelled(), "an end is no reset");
    stream.output.send(Bytes::from_static(b"answer")).await.unwrap();
    stream.output.close().await.unwrap();
    assert_eq!(client.next().await, data(1, "answer", false));
    assert_eq!(client.next().await, data(1, "", true));
    assert!(connection.link.streams().open.is_empty());
    let finished = tokio::spawn(connection.finish());
    assert_eq!(client.next().await, Some(Frame::GoAway { last: 1, status: away::OK }));
    assert_eq!(client.next().await, None);
    // The server stays until the client has gone.
    client.send(Frame::Ping(1)).await;
    assert!(!finished.is_finished());
    drop(client);
    finished.await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_connection_ends_its_streams_after_their_data() {
    let (mut client, connection, mut incoming, mut stream) = opened().await;
    client.open(3).await;
    let second = incoming.recv().await.unwrap().accept();
    assert_eq!(client.next().await, reply(3));
    stream.output.send(Bytes::from_static(b"last words")).await.unwrap();
    let finished = tokio::spawn(connection.finish());
    let mut frames = Vec::new();
    while let Some(frame) = client.next().await {
        frames.push(frame);
    }
    let want = [data(1, "last words", false), data(1, "", true), data(3, "", true)];
    assert_eq!(frames[..3], want.map(Option::unwrap));
    assert_eq!(frames[3], Frame::GoAway { last: 3, status: away::OK });
    client.send(Frame::GoAway { last: 0, status: away::OK }).await;
    finished.await.unwrap();
    assert!(second.cancelled.is_cancelled());
}

#[tokio::test]
async fn resets_end_one_stream_only() {
    let (mut client, _connection, mut incoming, mut stream) = opened().await;
    client.open(3).await;
    let mut other = incoming.recv().await.unwrap().accept();
    assert_eq!(client.next().await, reply(3));
    client.send(Frame::RstStream { stream: 1, status: reset::CANCEL }).await;
    assert_eq!(stream.input.next().await, None);
    assert!(stream.cancelled.is_cancelled() && !other.cancelled.is_cancelled());
    assert_eq!(stream.output.send(Bytes::from_static(b"x")).await, Err(Gone));
    client.data(1, b"late", false).await;
    client.data(3, b"fine", false).await;
    assert_eq!(other.input.next().await.unwrap(), "fine");
    other.end.reset().await;
    assert_eq!(client.next().await, Some(Frame::RstStream { stream: 3, status: reset::CANCEL }));
}

#[tokio::test]
async fn streams_that_are_wrong_or_not_wanted_are_refused() {
    let (mut client, connection, mut incoming, _stream) = opened().await;
    for stream in [2, 1] {
        client.open(stream).await;
        assert_eq!(client.next().await, Some(Frame::RstStream { stream, status: reset::PROTOCOL_ERROR }));
    }
    client.open(5).await;
    incoming.recv().await.unwrap().refuse();
    assert_eq!(client.next().await, Some(Frame::RstStream { stream: 5, status: reset::REFUSED_STREAM }));
    drop(incoming);
    client.open(7).await;
    assert_eq!(client.next().await, Some(Frame::RstStream { stream: 7, status: reset::REFUSED_STREAM }));
    assert_eq!(connection.link.streams().open.len(), 1);
    // Pings of a client have odd numbers.
    client.send(Frame::Ping(2)).await;
    client.send(Frame::Ping(9)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(9)));
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_and_let_go() {
    let (mut client, connection, _incoming, stream) = opened().await;
    client.io.write_all(&[0x80, 2, 0, 1, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(client.next().await, Some(Frame::GoAway { last: 1, status: away::PROTOCOL_ERROR }));
    connection.gone().cancelled().await;
    stream.cancelled.cancelled().await;
}

#[tokio::test]
async fn no_more_is_sent_than_the_client_has_room_for() {
    let (mut client, _connection, mut incoming, _first) = opened().await;
    client.send(Frame::Settings(vec![Setting { flags: 0, id: INITIAL_WINDOW_SIZE, value: 4 }])).await;
    client.open(3).await;
    let mut stream = incoming.recv().await.unwrap().accept();
    assert_eq!(client.next().await, reply(3));
    let sending = tokio::spawn(async move { stream.output.send(Bytes::from_static(b"123456789")).await });
    assert_eq!(client.next().await, data(3, "1234", false));
    client.send(Frame::Ping(1)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(1)), "nothing else came");
    client.send(Frame::WindowUpdate { stream: 3, delta: 3 }).await;
    assert_eq!(client.next().await, data(3, "567", false));
    client.send(Frame::WindowUpdate { stream: 3, delta: 100 }).await;
    assert_eq!(client.next().await, data(3, "89", false));
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_fast_client_is_held_back_and_loses_nothing() {
    const PIECE: usize = 10_000;
    const PIECES: usize = 100;
    let (client, _connection, _incoming, mut stream) = opened().await;
    let (mut from, mut to) = tokio::io::split(client.io);
    let mut encoder = client.encoder;
    let sending = tokio::spawn(async move {
        for number in 0..PIECES {
            let data = vec![u8::try_from(number).unwrap(); PIECE];
            let mut out = BytesMut::new();
            encoder.encode(&Frame::Data { stream: 1, fin: number == PIECES - 1, data: data.into() }, &mut out);
            to.write_all(&out).await.unwrap();
        }
        to
    });
    // What waits is bounded, so the client cannot be done before anything is taken.
    tokio::task::yield_now().await;
    assert!(!sending.is_finished());
    let windows = tokio::spawn(async move {
        let (mut decoder, mut buffer, mut grown) = (Decoder::default(), BytesMut::new(), 0);
        while grown < 900_000 && from.read_buf(&mut buffer).await.unwrap() > 0 {
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                if let Frame::WindowUpdate { stream: 1, delta } = frame {
                    grown += delta;
                }
            }
        }
        grown
    });
    let mut all = Vec::new();
    while let Some(piece) = stream.input.next().await {
        all.extend_from_slice(&piece);
    }
    let want: Vec<u8> = (0..PIECES).flat_map(|number| vec![u8::try_from(number).unwrap(); PIECE]).collect();
    assert!(all == want, "{} bytes", all.len());
    assert!(windows.await.unwrap() >= 900_000);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_silent_connection_is_ended() {
    let (mut client, connection, _incoming) = connect(Duration::from_millis(50));
    connection.gone().cancelled().await;
    assert_eq!(client.next().await, None);
}
