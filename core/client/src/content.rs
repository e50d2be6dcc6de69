//! Content behind a socket.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kevel_contract::{
    Scope,
    content::{Backend, Begin, Blob, Commit, ContentStore, Info, Ingest, KEPT_ELSEWHERE, Status},
};
use kevel_model::{Code, Digest, Error, Filters, Result};
use kevel_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, InfoRequest, ListContentRequest, ListStatusesRequest, ReadContentRequest,
    StatusRequest, UpdateRequest, WriteAction, WriteContentRequest, WriteContentResponse,
    content_client::ContentClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{
    Remote,
    convert::{self, content, mask, signed, unsigned},
    remote::{answer, client},
};

/// The most data in one message, in bytes.
const CHUNK: usize = 1 << 20;

/// A content store behind a socket.
pub fn content(remote: &Remote) -> ContentStore {
    ContentStore::new(remote.target(), RemoteContent(remote.clone()))
}

struct RemoteContent(Remote);

impl RemoteContent {
    fn client(&self) -> ContentClient<Channel> {
        client!(ContentClient<Channel>, self.0)
    }
}

#[async_trait]
impl Backend for RemoteContent {
    async fn info(&self, scope: &Scope, digest: &Digest) -> Result<Info> {
        let message = InfoRequest { digest: digest.to_string() };
        content::read(answer(self.client().info(self.0.request(scope, message)?).await)?.info)
    }

    async fn update(&self, scope: &Scope, info: Info, fieldpaths: &[String]) -> Result<Info> {
        let message = UpdateRequest { info: Some(content::wire(info)), update_mask: mask(fieldpaths) };
        content::read(answer(self.client().update(self.0.request(scope, message)?).await)?.info)
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>> {
        let message = ListContentRequest { filters: filters.sources().to_vec() };
        let mut pages = answer(self.client().list(self.0.request(scope, message)?).await)?;
        let mut found = Vec::new();
        while let Some(page) = pages.message().await.map_err(convert::error::error)? {
            for info in page.info {
                found.push(content::read(Some(info))?);
            }
        }
        Ok(found)
    }

    async fn delete(&self, scope: &Scope, digest: &Digest) -> Result<()> {
        let message = DeleteContentRequest { digest: digest.to_string() };
        answer(self.client().delete(self.0.request(scope, message)?).await)
    }

    async fn open(&self, scope: &Scope, digest: &Digest) -> Result<Box<dyn Blob>> {
        let size = self.info(scope, digest).await?.size;
        let (remote, scope, digest) = (self.0.clone(), scope.clone(), digest.clone());
        Ok(Box::new(RemoteBlob { remote, scope, digest, size }))
    }

    async fn status(&self, scope: &Scope, reference: &str) -> Result<Status> {
        let message = StatusRequest { r#ref: reference.to_owned() };
        content::status_read(answer(self.client().status(self.0.request(scope, message)?).await)?.status)
    }

    async fn statuses(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Status>> {
        let message = ListStatusesRequest { filters: filters.sources().to_vec() };
        let found = answer(self.client().list_statuses(self.0.request(scope, message)?).await)?.statuses;
        found.into_iter().map(|status| content::status_read(Some(status))).collect()
    }

    async fn begin(&self, scope: &Scope, begin: Begin) -> Result<Box<dyn Ingest>> {
        let (messages, stream) = mpsc::channel(1);
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: begin.reference.clone(),
            total: signed(begin.total),
            expected: begin.expected.as_ref().map(Digest::to_string).unwrap_or_default(),
            ..WriteContentRequest::default()
        };
        // The answer's headers may come only with the first answer, so the question goes first.
        messages.try_send(first).map_err(|_| Error::internal("opening an ingest: the queue of one is full"))?;
        let answers = answer(self.client().write(self.0.request(scope, ReceiverStream::new(stream))?).await)?;
        let epoch = SystemTime::UNIX_EPOCH;
        let status = Status {
            reference: begin.reference,
            offset: 0,
            total: begin.total,
            expected: begin.expected,
            started_at: epoch,
            updated_at: epoch,
        };
        let mut ingest = RemoteIngest { remote: self.0.clone(), messages, answers, status, digest: String::new() };
        ingest.receive().await?;
        Ok(Box::new(ingest))
    }

    async fn abort(&self, scope: &Scope, reference: &str) -> Result<()> {
        let message = AbortRequest { r#ref: reference.to_owned() };
        answer(self.client().abort(self.0.request(scope, message)?).await)
    }
}

struct RemoteBlob {
    remote: Remote,
    scope: Scope,
    digest: Digest,
    size: u64,
}

impl RemoteBlob {
    async fn fetch(&self, offset: u64, length: usize) -> Result<Bytes> {
        let message =
            ReadContentRequest { digest: self.digest.to_string(), offset: signed(offset), size: signed(length as u64) };
        let mut client = client!(ContentClient<Channel>, self.remote);
        let mut parts = answer(client.read(self.remote.request(&self.scope, message)?).await)?;
        let mut data = BytesMut::with_capacity(length);
        while let Some(part) = parts.message().await.map_err(convert::error::error)? {
            if data.len() + part.data.len() > length {
                return Err(Error::internal(format!("reading {}: more came than was asked for", self.digest)));
            }
            data.extend_from_slice(&part.data);
        }
        Ok(data.freeze())
    }
}

#[async_trait]
impl Blob for RemoteBlob {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        match length.min(rest) {
            0 => Ok(Bytes::new()),
            length => self.remote.target().call("read_at", self.fetch(offset, length)).await,
        }
    }
}

struct RemoteIngest {
    remote: Remote,
    messages: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    status: Status,
    digest: String,
}

impl RemoteIngest {
    async fn receive(&mut self) -> Result<()> {
        let limit = self.remote.patience();
        let received = tokio::time::timeout(limit, self.answers.message()).await;
        let received = received.map_err(|_| {
            Error::deadline_exceeded(format!("ingest {:?} was not answered within {limit:?}", self.status.reference))
        })?;
        let answer = received.map_err(|status| self.remote.blame(convert::error::error(status)))?;
        let ended = || self.remote.blame(Error::unavailable("the ingest's session was ended"));
        let answer = answer.ok_or_else(ended)?;
        self.status.offset = unsigned("offset", answer.offset)?;
        self.status.started_at = convert::time_read("started_at", answer.started_at)?;
        self.status.updated_at = convert::time_read("updated_at", answer.updated_at)?;
        self.digest = answer.digest;
        Ok(())
    }

    async fn ask(&mut self, mut message: WriteContentRequest) -> Result<()> {
        message.r#ref.clone_from(&self.status.reference);
        // A closed session has left its reason behind the last answer.
        let _ = self.messages.send(message).await;
        self.receive().await
    }

    async fn append(&mut self, data: Bytes) -> Result<()> {
        let message = WriteContentRequest {
            action: WriteAction::Write.into(),
            offset: signed(self.status.offset),
            data,
            ..WriteContentRequest::default()
        };
        self.ask(message).await
    }
}

#[async_trait]
impl Ingest for RemoteIngest {
    fn status(&self) -> Status {
        self.status.clone()
    }

    async fn digest(&mut self) -> Result<Digest> {
        if self.digest.is_empty() {
            self.ask(WriteContentRequest { action: WriteAction::Stat.into(), ..WriteContentRequest::default() })
                .await?;
        }
        content::digest("digest", &self.digest)
    }

    async fn write(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            self.append(data.split_to(data.len().min(CHUNK))).await?;
        }
        Ok(())
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        match size {
            size if size == self.status.offset => Ok(()),
            // A write at offset 0 of an ingest that has data begins again.
            0 => {
                let action = WriteAction::Write.into();
                self.ask(WriteContentRequest { action, ..WriteContentRequest::default() }).await
            }
            _ => Err(Error::new(Code::Unimplemented, "a remote ingest can be cut back to its beginning only")),
        }
    }

    async fn commit(&mut self, mut commit: Commit) -> Result<Digest> {
        if self.remote.is_proxy() {
            let (label, value) = KEPT_ELSEWHERE;
            commit.labels.insert(label.to_owned(), value.to_owned());
        }
        let message = WriteContentRequest {
            action: WriteAction::Commit.into(),
            total: signed(commit.size),
            offset: signed(self.status.offset),
            expected: commit.expected.as_ref().map(Digest::to_string).unwrap_or_default(),
            labels: commit.labels,
            ..WriteContentRequest::default()
        };
        self.ask(message).await?;
        content::digest("digest", &self.digest)
    }
}
