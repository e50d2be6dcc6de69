//! Content.Write: an ingest in a session. The first message names the ingest and opens it; every message is answered
//! with how far it is, and the answer to a commit ends the session.
//!
//! A write at offset 0 of an ingest that has data begins again; at any other offset it must continue where the ingest
//! ends ("out of range"). An expected digest that exists already ends the session with "already exists" and throws the
//! ingest away. All of that is containerd's behaviour.

use futures::StreamExt as _;
use kevel_client::convert::{content, signed, time_wire, unsigned};
use kevel_contract::{
    Scope,
    content::{Begin, Commit, ContentStore, Ingest},
};
use kevel_model::{Context as _, Digest, Error, Result};
use kevel_proto::containerd::services::content::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::call::Items;

/// Answers that wait for a client that does not read; more hold its session up.
const PENDING: usize = 4;

pub(super) async fn write(
    store: ContentStore,
    scope: Scope,
    messages: Streaming<WriteContentRequest>,
) -> Result<Items<WriteContentResponse>> {
    let (answers, stream) = mpsc::channel(PENDING);
    // A task of its own: a commit under way is not stopped by the client's hang-up.
    tokio::spawn(async move {
        if let Err(error) = session(&store, &scope, messages, &answers).await {
            let _ = answers.send(Err(error)).await; // nobody to tell if the client has gone
        }
    });
    Ok(ReceiverStream::new(stream).boxed())
}

async fn session(
    store: &ContentStore,
    scope: &Scope,
    mut messages: Streaming<WriteContentRequest>,
    answers: &mpsc::Sender<Result<WriteContentResponse>>,
) -> Result<()> {
    let Some(mut request) = receive(&mut messages).await? else { return Ok(()) };
    let mut session = Session::open(store, scope, &request).await?;
    loop {
        let last = request.action() == WriteAction::Commit;
        let answer = session.handle(request).await?;
        if answers.send(Ok(answer)).await.is_err() || last {
            return Ok(());
        }
        match receive(&mut messages).await? {
            Some(next) => request = next,
            None => return Ok(()),
        }
    }
}

async fn receive(messages: &mut Streaming<WriteContentRequest>) -> Result<Option<WriteContentRequest>> {
    messages.message().await.map_err(kevel_client::convert::error::error)
}

struct Session<'a> {
    store: &'a ContentStore,
    scope: &'a Scope,
    ingest: Box<dyn Ingest>,
    reference: String,
    total: u64,
    expected: Option<Digest>,
}

impl<'a> Session<'a> {
    async fn open(store: &'a ContentStore, scope: &'a Scope, first: &WriteContentRequest) -> Result<Self> {
        if first.r#ref.is_empty() {
            return Err(Error::invalid_argument("first message must have a reference"));
        }
        let total = unsigned("total", first.total)?;
        let expected = content::optional_digest("expected", &first.expected)?;
        let reference = first.r#ref.clone();
        let begin = Begin { reference: reference.clone(), total, expected: expected.clone() };
        let ingest = store.begin(scope, begin).await?;
        Ok(Self { store, scope, ingest, reference, total, expected })
    }

    async fn handle(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse> {
        self.expect(&request).await?;
        let action = request.action();
        let status = self.ingest.status();
        let mut answer = WriteContentResponse {
            action: action.into(),
            started_at: time_wire(status.started_at),
            updated_at: time_wire(status.updated_at),
            offset: signed(status.offset),
            total: signed(self.total),
            digest: String::new(),
        };
        if action == WriteAction::Stat {
            answer.digest = self.ingest.digest().await?.to_string();
            return Ok(answer);
        }
        let offset = unsigned("offset", request.offset)?;
        answer.offset = signed(self.append(offset, status.offset, request.data).await?);
        let digest = match action {
            WriteAction::Commit => {
                let commit = Commit { size: self.total, expected: self.expected.clone(), labels: request.labels };
                self.ingest.commit(commit).await?
            }
            _ => self.ingest.digest().await?,
        };
        answer.digest = digest.to_string();
        Ok(answer)
    }

    /// Takes over what a message says of the whole blob.
    async fn expect(&mut self, request: &WriteContentRequest) -> Result<()> {
        if let Some(digest) = content::optional_digest("expected", &request.expected)? {
            if self.store.info(self.scope, &digest).await.is_ok() {
                if let Err(error) = self.store.abort(self.scope, &self.reference).await {
                    tracing::debug!(error = error.chain(), "the ingest of an existing blob stays");
                }
                return Err(Error::already_exists(format!("blob with expected digest {digest} exists")));
            }
            self.expected = Some(digest);
        }
        match unsigned("total", request.total)? {
            0 => {}
            total => self.total = total,
        }
        Ok(())
    }

    /// Appends at `offset`; answers how far the ingest is then.
    async fn append(&mut self, offset: u64, end: u64, data: bytes::Bytes) -> Result<u64> {
        if offset > 0 && offset != end {
            return Err(Error::out_of_range(format!("write @{offset} must occur at current offset {end}")));
        }
        if offset == 0 && end > 0 {
            self.ingest.truncate(0).await.context(|| "truncate failed")?;
        }
        let length = data.len() as u64;
        if length > 0 {
            self.ingest.write(data).await?;
        }
        Ok(offset + length)
    }
}
