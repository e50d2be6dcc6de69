//! Blobs as streams: one piece in memory at a time, taken up again where a connection broke.

use bytes::Bytes;
use futures::{Stream, stream};
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use kevel_model::Descriptor;

use crate::{
    Answer, Error, Session, Why,
    request::{Ask, next_piece},
    session::Endpoint,
    try_hosts::backoff,
};

/// A connection that breaks more often than this over one blob is given up, whatever it brought.
const MAX_BREAKS: u32 = 100;

/// The bytes of a blob, or of a part of one, in order. What arrives is exactly as long as was asked for or an error; the
/// digest is for the reader to check.
pub struct BlobStream {
    session: Session,
    descriptor: Descriptor,
    offset: u64,
    /// Where it ends; the blob's size unless this is a part.
    end: u64,
    body: Option<Source>,
    /// Breaks since the last byte, and in all.
    failures: u32,
    breaks: u32,
}

struct Source {
    body: Incoming,
    host: String,
    /// Bytes of a host that ignores ranges which were read before.
    skip: u64,
    /// Whether the host sends the blob to its end.
    whole: bool,
}

impl Session {
    /// Opens a blob at an offset. Fails at once if no host has it.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, Error> {
        self.part(descriptor, offset, descriptor.size).await
    }

    /// Opens the part of a blob from `offset` up to `end`.
    pub(crate) async fn part(&self, descriptor: &Descriptor, offset: u64, end: u64) -> Result<BlobStream, Error> {
        let (session, descriptor) = (self.clone(), descriptor.clone());
        let mut stream = BlobStream { session, descriptor, offset, end, body: None, failures: 0, breaks: 0 };
        if offset < end {
            stream.body = Some(stream.open().await?);
        }
        Ok(stream)
    }

    async fn blob_at(&self, endpoint: &Endpoint, blob: &BlobStream) -> Result<Source, Why> {
        let (offset, end, size) = (blob.offset, blob.end, blob.descriptor.size);
        let mut headers = vec![(header::ACCEPT, HeaderValue::from_static("*/*"))];
        let range = if end < size { format!("{offset}-{}", end - 1) } else { format!("{offset}-") };
        if offset > 0 || end < size {
            let range = HeaderValue::from_str(&format!("bytes={range}"));
            headers.push((header::RANGE, range.map_err(|error| Why::Settings(error.to_string()))?));
        }
        let path = format!("blobs/{}", blob.descriptor.digest);
        let response = self.ask(endpoint, &Ask { method: Method::GET, path, headers, actions: "pull" }).await?;
        let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let part = match (response.status(), text(header::CONTENT_RANGE)) {
            (StatusCode::PARTIAL_CONTENT, Some(answered)) if answered.starts_with(&format!("bytes {range}")) => true,
            (StatusCode::PARTIAL_CONTENT, answered) => {
                let answered = answered.unwrap_or("nothing");
                return Err(Why::Protocol(format!("answers range {answered:?} where bytes {range} were asked for")));
            }
            _ => false,
        };
        let expected = if part { end - offset } else { size };
        if let Some(length) = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok())
            && length != expected
        {
            return Err(Why::Damaged(format!("has {length} bytes where {expected} were announced")));
        }
        let skip = if part { 0 } else { offset };
        let whole = !part || end == size;
        Ok(Source { body: response.into_body(), host: endpoint.url(), skip, whole })
    }
}

impl BlobStream {
    /// How many bytes have been handed out, counted from the blob's start.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the host sends all up to the blob's end, though a part of it was asked for perhaps.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.as_ref().is_some_and(|source| source.whole)
    }

    /// Goes on to the end of the blob; for a stream that [is whole](Self::is_whole).
    pub(crate) fn extend(&mut self) {
        self.end = self.descriptor.size;
    }

    /// The next piece; `None` when the blob, or the part of it, is complete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.offset < self.end {
            let source = match &mut self.body {
                Some(source) => source,
                None => {
                    let source = self.open().await?;
                    self.body.insert(source)
                }
            };
            let (left, past) = (self.end - self.offset, self.descriptor.size - self.offset);
            let cut = source.whole && left < past;
            match source.next(self.session.settings().stall_timeout).await {
                Ok(Some(piece)) if piece.len() as u64 > if cut { past } else { left } => {
                    return Err(self.error(Why::Damaged(format!("is longer than {} bytes", self.descriptor.size))));
                }
                Ok(Some(mut piece)) => {
                    piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    self.offset += piece.len() as u64;
                    self.failures = 0;
                    return Ok(Some(piece));
                }
                Ok(None) => {
                    let ended = format!("ends after {} of {} bytes", self.offset, self.end);
                    self.broken(Why::Damaged(ended)).await?;
                }
                Err(why) => self.broken(why).await?,
            }
        }
        self.body = None;
        Ok(None)
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::try_unfold(self, |mut blob| async move { Ok(blob.next().await?.map(|piece| (piece, blob))) })
    }

    async fn open(&self) -> Result<Source, Error> {
        let object = format!("{}@{}", self.session.reference().name(), self.descriptor.digest);
        let mut rounds = self.session.rounds("fetching", object, |capabilities| capabilities.pull);
        while let Some(endpoint) = rounds.next().await {
            match self.session.blob_at(endpoint, self).await {
                Ok(source) => return Ok(source),
                Err(why) => rounds.failed(why),
            }
        }
        Err(rounds.error())
    }

    /// Prepares another connection after a break, or says that it was the last.
    async fn broken(&mut self, why: Why) -> Result<(), Error> {
        let settings = self.session.settings();
        if self.failures >= settings.retries || self.breaks >= MAX_BREAKS {
            return Err(self.error(why));
        }
        tracing::debug!(digest = %self.descriptor.digest, offset = self.offset, %why, "blob broke off, resuming");
        tokio::time::sleep(backoff(settings, self.failures, None)).await;
        self.failures += 1;
        self.breaks += 1;
        self.body = None;
        Ok(())
    }

    pub(crate) fn error(&self, why: Why) -> Error {
        let object = format!("{}@{}", self.session.reference().name(), self.descriptor.digest);
        let host = self.body.as_ref().map_or_else(String::new, |source| source.host.clone());
        Error::Hosts { doing: "fetching", object, answers: vec![Answer { host, why }] }
    }
}

impl Source {
    async fn next(&mut self, stall: std::time::Duration) -> Result<Option<Bytes>, Why> {
        loop {
            let Some(mut piece) = next_piece(&mut self.body, stall).await? else { return Ok(None) };
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
            self.skip -= skipped as u64;
            piece = piece.split_off(skipped);
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream").field("digest", &self.descriptor.digest).field("offset", &self.offset).finish()
    }
}
