//! Frames that break the rules, peers that do not read, too many calls, foreign users, shutdown.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod harness;

use bytes::BytesMut;
use harness::{Blob, Number, SERVICE, Site, Text, blob, number, reaches, soon, text};
use kevel_ttrpc::frame::{self, Decoded, Decoder, Flags, Header, Kind, MAX_MESSAGE};
use kevel_ttrpc::message::{Request, Response};
use kevel_ttrpc::{CallOptions, Client, Code, Limits};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A peer that sends what the test wants.
struct Raw {
    io: DuplexStream,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Raw {
    fn new(io: DuplexStream) -> Self {
        Self { io, decoder: Decoder::default(), buffer: BytesMut::new() }
    }

    async fn send(&mut self, stream: u32, kind: Kind, flags: Flags, data: &[u8]) {
        let frame = frame::encode_bytes(stream, kind, flags, data).unwrap();
        soon(self.io.write_all(&frame)).await.unwrap();
    }

    async fn request(&mut self, stream: u32, flags: Flags, method: &str, timeout_nano: i64) {
        let request = Request { service: SERVICE.into(), method: method.into(), timeout_nano, ..Request::default() };
        self.send(stream, Kind::Request, flags, &request.encode_to_vec()).await;
    }

    async fn next(&mut self) -> Option<frame::Frame> {
        loop {
            match self.decoder.decode(&mut self.buffer).unwrap() {
                Some(Decoded::Frame(frame)) => return Some(frame),
                Some(Decoded::Oversize(header)) => panic!("oversize {header:?}"),
                None => {}
            }
            if soon(self.io.read_buf(&mut self.buffer)).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn expect(&mut self, stream: u32, code: Code) {
        let frame = self.next().await.expect("an answer");
        assert_eq!((frame.header.stream, frame.header.kind), (stream, Kind::Response));
        let status = Response::decode(frame.data).unwrap().status;
        assert_eq!(status.map_or(Code::Ok, |status| status.code.into()), code);
    }
}

#[tokio::test]
async fn frames_that_break_the_rules_are_answered_and_the_connection_goes_on() {
    let mut peer = Raw::new(Site::new().connection(64 * 1024).0);
    peer.request(2, Flags::NONE, "Echo", 0).await;
    peer.expect(2, Code::InvalidArgument).await; // even
    peer.request(0, Flags::NONE, "Echo", 0).await;
    peer.expect(0, Code::InvalidArgument).await; // even
    peer.request(5, Flags::NONE, "Echo", 0).await;
    peer.expect(5, Code::Ok).await;
    peer.request(5, Flags::NONE, "Echo", 0).await;
    peer.expect(5, Code::InvalidArgument).await; // used again
    peer.request(3, Flags::NONE, "Echo", 0).await;
    peer.expect(3, Code::InvalidArgument).await; // lower
    peer.send(9, Kind::Data, Flags::NONE, b"").await;
    peer.expect(9, Code::InvalidArgument).await; // never opened
    peer.send(5, Kind::Data, Flags::NONE, b"late data is ignored").await;
    peer.send(5, Kind::Response, Flags::NONE, b"not for servers").await;
    peer.send(5, Kind::Other(77), Flags(0xff), b"not known").await;
    peer.send(11, Kind::Request, Flags::NONE, b"\xff\xff\xff").await;
    peer.expect(11, Code::InvalidArgument).await; // not an envelope
    peer.request(13, Flags::NONE, "Hang", -5).await;
    peer.expect(13, Code::DeadlineExceeded).await; // over before it began
    peer.request(15, Flags::REMOTE_CLOSED, "Sum", 0).await;
    peer.expect(15, Code::Ok).await; // an empty first message
    peer.request(17, Flags::REMOTE_CLOSED, "Deaf", 0).await;
    peer.send(17, Kind::Data, Flags::NONE, b"").await;
    peer.expect(17, Code::InvalidArgument).await; // data after the end
    peer.request(19, Flags::REMOTE_OPEN, "Sum", 0).await;
    peer.send(19, Kind::Data, Flags::REMOTE_CLOSED, &number(4).encode_to_vec()).await;
    peer.expect(19, Code::Ok).await; // a last message with data
}

#[tokio::test]
async fn an_oversize_frame_is_answered_and_skipped() {
    let site = Site::new();
    let mut peer = Raw::new(site.connection(64 * 1024).0);
    let length = MAX_MESSAGE + 1;
    let oversize = async |peer: &mut Raw, stream, kind| {
        let header = Header { length: length as u32, stream, kind, flags: Flags::NONE };
        peer.io.write_all(&header.encode()).await.unwrap();
        soon(peer.io.write_all(&vec![1; length])).await.unwrap();
    };
    oversize(&mut peer, 1, Kind::Request).await;
    peer.expect(1, Code::ResourceExhausted).await;
    peer.request(1, Flags::NONE, "Echo", 0).await;
    peer.expect(1, Code::InvalidArgument).await; // the id is used up
    peer.request(3, Flags::REMOTE_OPEN, "Deaf", 0).await;
    oversize(&mut peer, 3, Kind::Data).await;
    peer.expect(3, Code::ResourceExhausted).await;
    peer.request(5, Flags::NONE, "Echo", 0).await;
    peer.expect(5, Code::Ok).await;
}

#[tokio::test]
async fn what_is_not_ttrpc_is_closed() {
    let (mut io, serving) = Site::new().connection(1024);
    io.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(soon(io.read_u8()).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    soon(serving).await.unwrap();

    let (mut io, far) = tokio::io::duplex(1024);
    let client = Client::new(far);
    io.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
    soon(client.closed()).await;
    let error = client.call::<_, Text>(SERVICE, "Echo", &text(""), CallOptions::default()).await.unwrap_err();
    assert_eq!(
        std::error::Error::source(&error).expect("a cause").to_string(),
        "frame of 1213486160 bytes: the first byte of a frame is reserved and must be zero"
    );
}

#[tokio::test]
async fn answers_that_are_none_fail_only_their_call() {
    let (io, far) = tokio::io::duplex(1024);
    let (mut server, client) = (Raw::new(io), Client::new(far));
    let call = |client: &Client| {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, Text>(SERVICE, "Echo", &text(""), CallOptions::default()).await })
    };
    let data = call(&client);
    let garbage = call(&client);
    let good = call(&client);
    for _ in 0..3 {
        server.next().await.unwrap();
    }
    server.send(99, Kind::Response, Flags::NONE, b"nobody asked").await;
    server.send(1, Kind::Data, Flags::NONE, b"").await;
    server.send(3, Kind::Response, Flags::NONE, b"\xff\xff").await;
    server.send(5, Kind::Response, Flags::NONE, b"").await;
    assert_eq!(soon(data).await.unwrap().unwrap_err().to_string().split(':').next(), Some("ttrpc protocol violation"));
    assert_eq!(soon(garbage).await.unwrap().unwrap_err().to_string(), "decode response envelope");
    assert_eq!(soon(good).await.unwrap().unwrap(), text(""));
}

#[tokio::test]
async fn calls_above_the_bound_are_refused_at_once() {
    let site = Site::with(|server| server.max_calls(2));
    let client = site.client();
    let hang = || {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, Text>(SERVICE, "Gate", &text(""), CallOptions::default()).await })
    };
    let waiting = [hang(), hang()];
    reaches(&site.gated, 2).await;
    let echo = async || soon(client.call::<_, Blob>(SERVICE, "Echo", &blob(1), CallOptions::default())).await;
    assert_eq!(echo().await.unwrap_err().code(), Code::ResourceExhausted);
    site.gate.notify_waiters();
    for call in waiting {
        soon(call).await.unwrap().unwrap();
    }
    assert_eq!(echo().await.unwrap(), blob(1));
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_back_its_handlers_only() {
    let limits = Limits { write_queue: 256 * 1024, ..Limits::default() };
    let site = Site::with(|server| server.limits(limits));
    let mut peer = Raw::new(site.connection(1024).0);
    let grow = Request {
        service: SERVICE.into(),
        method: "Grow".into(),
        payload: number(100_000).encode_to_vec().into(),
        ..Request::default()
    };
    let mut sent: u32 = 0;
    for _ in 0..50 {
        peer.send(sent * 2 + 1, Kind::Request, Flags::NONE, &grow.encode_to_vec()).await;
        sent += 1;
    }
    let other = site.client();
    let answer: Blob = soon(other.call(SERVICE, "Echo", &blob(5), CallOptions::default())).await.unwrap();
    assert_eq!(answer, blob(5), "another connection is served");
    for _ in 0..sent {
        let frame = peer.next().await.expect("every answer arrives once the peer reads");
        assert!(frame.data.len() > 100_000);
    }
}

#[tokio::test]
async fn a_server_that_does_not_read_holds_back_its_callers_until_their_deadline() {
    let (_unread, far) = tokio::io::duplex(1024);
    let client = Client::with_limits(far, Limits { write_queue: 64 * 1024, ..Limits::default() });
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            let options = CallOptions::timeout(Duration::from_millis(200));
            tokio::spawn(async move { client.call::<_, Blob>(SERVICE, "Echo", &blob(30_000), options).await })
        })
        .collect();
    for call in calls {
        assert_eq!(soon(call).await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    }
}

#[tokio::test]
async fn shutdown_lets_running_calls_finish_and_refuses_new_ones() {
    let site = Site::new();
    let (io, serving) = site.connection(64 * 1024);
    let client = Client::new(io);
    let gated = {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, Text>(SERVICE, "Gate", &text("x"), CallOptions::default()).await })
    };
    reaches(&site.gated, 1).await;
    let mut chat = client.stream(SERVICE, "Chat", CallOptions::default()).await.unwrap();
    chat.send(&text("a")).await.unwrap();
    assert_eq!(soon(chat.recv()).await.unwrap(), Some(text("A")));
    site.shutdown.cancel();
    let late = number(1);
    let refused = soon(client.call::<_, Number>(SERVICE, "Echo", &late, CallOptions::default())).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    chat.send(&text("b")).await.unwrap();
    assert_eq!(soon(chat.recv()).await.unwrap(), Some(text("B")), "streams go on");
    chat.close_send().await.unwrap();
    site.gate.notify_one();
    assert_eq!(soon(gated).await.unwrap().unwrap(), text("x"));
    soon(serving).await.unwrap();
    soon(client.closed()).await;
}

#[tokio::test]
async fn shutdown_drops_calls_when_the_drain_is_over() {
    let site = Site::with(|server| server.drain(Duration::from_millis(50)));
    let (io, serving) = site.connection(1024);
    let client = Client::new(io);
    let request = text("");
    let hanging = client.call::<_, Text>(SERVICE, "Hang", &request, CallOptions::default());
    let stop = async {
        reaches(&site.hanging, 1).await;
        site.shutdown.cancel();
    };
    let (error, ()) = soon(async { tokio::join!(hanging, stop) }).await;
    assert!(error.unwrap_err().is_closed());
    soon(serving).await.unwrap();
    reaches(&site.hanging, 0).await;
}

#[tokio::test]
async fn a_service_name_is_registered_once() {
    let mut site = Site::new();
    let error = site.server.register(SERVICE, Arc::new(harness::Echo::default())).unwrap_err();
    assert_eq!(error.to_string(), "register ttrpc service \"kevel.test.Echo\": the name is taken");
}
