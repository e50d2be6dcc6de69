//! One stream of a connection, as its user sees it.

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    connection::{CREDIT, Link},
    frame::{Frame, MAX_PIECE, reset},
    headers::Headers,
};
use crate::session::{Gone, Input, Output, Sink};

/// A stream that the client opened and nobody answered yet.
pub(crate) struct Incoming {
    pub(super) stream: u32,
    pub(super) headers: Headers,
    pub(super) input: Input,
    pub(super) cancelled: CancellationToken,
    pub(super) link: Link,
}

/// A stream in use.
pub(crate) struct Stream {
    /// From the client.
    pub(crate) input: Input,
    /// To the client.
    pub(crate) output: Output,
    /// Cancelled when the client reset the stream or is gone.
    pub(crate) cancelled: CancellationToken,
    /// Ends it for good.
    pub(crate) end: End,
}

/// Ends a stream.
pub(crate) struct End {
    stream: u32,
    link: Link,
}

impl End {
    /// Ends both directions, after all that was sent, if the client has not closed its own by now.
    pub(crate) async fn reset(self) {
        self.link.reset(self.stream).await;
    }
}

impl Incoming {
    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        self.stream
    }

    /// The first header of that name, in lower case; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(have, _)| have == name).map_or("", |(_, value)| value)
    }

    /// Tells the client that the stream is there.
    pub(crate) fn accept(self) -> Stream {
        self.link.answer(Frame::SynReply { stream: self.stream, fin: false, headers: Headers::new() });
        let end = End { stream: self.stream, link: self.link.clone() };
        let output = Output::new(Sending { stream: self.stream, cancelled: self.cancelled.clone(), link: self.link });
        Stream { input: self.input, output, cancelled: self.cancelled, end }
    }

    /// Tells the client that the stream is not wanted.
    pub(crate) fn refuse(self) {
        self.link.forget(self.stream);
        self.link.answer(Frame::RstStream { stream: self.stream, status: reset::REFUSED_STREAM });
    }
}

struct Sending {
    stream: u32,
    cancelled: CancellationToken,
    link: Link,
}

#[async_trait]
impl Sink for Sending {
    async fn send(&mut self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let wanted = data.len().min(MAX_PIECE);
            let sent = async {
                let count = self.link.windows.take(self.stream, wanted).await;
                let data = data.split_to(count);
                self.link.data.send(Frame::Data { stream: self.stream, fin: false, data }).await.map_err(|_| Gone)
            };
            tokio::select! {
                biased;
                () = self.cancelled.cancelled() => return Err(Gone),
                sent = sent => sent?,
            }
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Gone> {
        self.link.finish(self.stream).await
    }
}

/// Tells the client what was used of a stream.
#[derive(Debug)]
pub(crate) struct Credit {
    stream: u32,
    link: Link,
    owed: u32,
}

impl Credit {
    pub(super) fn new(stream: u32, link: Link) -> Self {
        Self { stream, link, owed: 0 }
    }

    pub(crate) fn give(&mut self, count: usize) {
        self.link.use_up(count);
        self.owed = self.owed.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        let grow = Frame::WindowUpdate { stream: self.stream, delta: self.owed };
        if self.owed >= CREDIT && self.link.answer(grow) {
            self.owed = 0;
        }
    }
}
