//! Content from the registry into the store: documents whole, blobs as streams.

use std::time::Duration;

use bytes::Bytes;
use kevel_contract::content::{Begin, Commit, Ingest};
use kevel_model::{Code, Context as _, Descriptor, Error, Labels, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{apply::Piece, flight::Ticket, labels, service::Job, store};

/// How long to wait for another process that writes the same blob before giving up, and between two looks.
const OTHERS: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);
/// Progress is told about every so many bytes.
const NEWS: u64 = 1 << 20;

impl Job {
    /// A document, from the store if it is there, else from the registry into the store with the labels that
    /// `label` finds in it.
    pub(crate) async fn document(
        &self,
        descriptor: &Descriptor,
        label: impl Fn(&[u8]) -> Result<Labels>,
    ) -> Result<Bytes> {
        let (content, scope) = (&self.shared.stores.content, self.scope());
        if store::find(content, scope, &descriptor.digest).await?.is_some() {
            store::keep(&self.shared.stores.leases, scope, "content", descriptor.digest.as_str()).await?;
            let body = store::read(content, scope, &descriptor.digest).await?;
            store::label(content, scope, &descriptor.digest, self.with_source(label(&body)?)).await?;
            return Ok(body);
        }
        let session = self
            .session
            .as_ref()
            .ok_or_else(|| Error::not_found(format!("content {} is not on this node", descriptor.digest)))?;
        self.tell("downloading", descriptor.digest.as_str(), (0, descriptor.size), Some(descriptor));
        let body = session.document(descriptor).await?;
        let labels = self.with_source(label(&body)?);
        store::write(content, scope, descriptor, body.clone(), labels).await?;
        self.tell("complete", descriptor.digest.as_str(), (descriptor.size, descriptor.size), Some(descriptor));
        Ok(body)
    }

    /// Sees to it that a blob is in the store.
    pub(crate) async fn blob(&self, descriptor: &Descriptor) -> Result<()> {
        if self.has_blob(descriptor).await? {
            return Ok(());
        }
        let ticket = self.join_download(descriptor, None);
        self.wait_download(&ticket, descriptor).await
    }

    /// Whether a blob is in the store; if so, the lease has it.
    pub(crate) async fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let stores = &self.shared.stores;
        let found = store::find(&stores.content, self.scope(), &descriptor.digest).await?;
        if let Some(info) = &found {
            if info.size != descriptor.size {
                let (digest, has, said) = (&descriptor.digest, info.size, descriptor.size);
                return Err(Error::data_loss(format!("blob {digest} has {has} bytes where {said} were announced")));
            }
            store::keep(&stores.leases, self.scope(), "content", descriptor.digest.as_str()).await?;
        }
        Ok(found.is_some())
    }

    /// Joins the download of a blob, or starts it. What is downloaded goes to `tee` too if this started it.
    pub(crate) fn join_download(&self, descriptor: &Descriptor, tee: Option<mpsc::Sender<Piece>>) -> Ticket {
        let key = (self.scope().namespace.clone(), descriptor.digest.clone());
        self.shared.blobs.join(key, |stop| {
            let download = Download { job: self.clone(), descriptor: descriptor.clone(), tee };
            async move { download.run(&stop).await }
        })
    }

    /// Waits for a download and has the lease keep what somebody else's brought.
    pub(crate) async fn wait_download(&self, ticket: &Ticket, descriptor: &Descriptor) -> Result<()> {
        ticket.wait().await?;
        if !ticket.leads {
            let leases = &self.shared.stores.leases;
            store::keep(leases, self.scope(), "content", descriptor.digest.as_str()).await?;
        }
        Ok(())
    }

    /// How far an interrupted download of a blob has come.
    pub(crate) async fn downloaded(&self, descriptor: &Descriptor) -> u64 {
        let reference = store::ingest_reference(descriptor);
        let status = self.shared.stores.content.status(self.scope(), &reference).await;
        status.map_or(0, |status| status.offset)
    }

    fn with_source(&self, mut labels: Labels) -> Labels {
        if let Some(session) = &self.session {
            labels.extend([labels::source(session.reference())]);
        }
        labels
    }
}

/// The download of one blob.
struct Download {
    job: Job,
    descriptor: Descriptor,
    tee: Option<mpsc::Sender<Piece>>,
}

impl Download {
    async fn run(mut self, stop: &CancellationToken) -> Result<()> {
        let digest = self.descriptor.digest.clone();
        let Some(mut ingest) = self.begin(stop).await? else { return Ok(()) };
        if ingest.status().offset > 0 {
            self.tee = None; // the beginning is not coming again
        }
        if ingest.status().offset > self.descriptor.size {
            ingest.truncate(0).await?;
        }
        self.receive(ingest.as_mut(), stop).await?;
        let labels = self.job.with_source(Labels::new());
        let commit = Commit { size: self.descriptor.size, expected: Some(digest.clone()), labels };
        match ingest.commit(commit).await {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {}
            Err(error) if error.code() == Code::FailedPrecondition => {
                drop(ingest);
                self.abort().await;
                let from = self.job.session.as_ref().map(|session| session.reference().name()).unwrap_or_default();
                let message = format!("blob {digest} of {from} is not what was announced");
                return Err(Error::data_loss(message).with_source(error));
            }
            Err(error) => return Err(error.context(format!("committing blob {digest}"))),
        }
        let size = self.descriptor.size;
        self.job.tell("complete", digest.as_str(), (size, size), Some(&self.descriptor));
        Ok(())
    }

    /// The open ingest; `None` if the blob is there. Waits while somebody else, a client perhaps, writes the same.
    async fn begin(&self, stop: &CancellationToken) -> Result<Option<Box<dyn Ingest>>> {
        let begin = Begin {
            reference: store::ingest_reference(&self.descriptor),
            total: self.descriptor.size,
            expected: Some(self.descriptor.digest.clone()),
        };
        let content = &self.job.shared.stores.content;
        let until = tokio::time::Instant::now() + OTHERS;
        loop {
            match content.begin(self.job.scope(), begin.clone()).await {
                Ok(ingest) => return Ok(Some(ingest)),
                Err(error) if error.is_already_exists() => return Ok(None),
                Err(error) if error.code() == Code::Unavailable && tokio::time::Instant::now() < until => {
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        () = stop.cancelled() => return Err(cancelled(&self.descriptor)),
                    }
                }
                Err(error) => return Err(error.context(format!("beginning blob {}", self.descriptor.digest))),
            }
        }
    }

    async fn receive(&mut self, ingest: &mut dyn Ingest, stop: &CancellationToken) -> Result<()> {
        let digest = &self.descriptor.digest;
        let missing = || Error::not_found(format!("content {digest} is not on this node"));
        let session = self.job.session.clone().ok_or_else(missing)?;
        let offset = ingest.status().offset;
        let (size, mut told) = (self.descriptor.size, offset);
        let shared = &self.job.shared;
        let _permit = tokio::select! {
            permit = shared.downloads.acquire() => permit.map_err(|_| cancelled(&self.descriptor))?,
            () = stop.cancelled() => return Err(cancelled(&self.descriptor)),
        };
        self.job.tell("downloading", digest.as_str(), (offset, size), Some(&self.descriptor));
        let mut blob = tokio::select! {
            blob = session.blob(&self.descriptor, offset) => blob?,
            () = stop.cancelled() => return Err(cancelled(&self.descriptor)),
        };
        loop {
            let piece = tokio::select! {
                piece = blob.next() => piece?,
                () = stop.cancelled() => return Err(cancelled(&self.descriptor)),
            };
            let Some(piece) = piece else { break };
            if let Some(tee) = &self.tee {
                let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                let count = count.min(u32::try_from(shared.config.max_bytes_in_flight.max(1)).unwrap_or(u32::MAX));
                let sent = async {
                    let permit = shared.bytes.clone().acquire_many_owned(count).await.ok();
                    tee.send(Piece::Data(piece.clone(), permit)).await
                };
                let gone = tokio::select! {
                    sent = sent => sent.is_err(),
                    () = stop.cancelled() => return Err(cancelled(&self.descriptor)),
                };
                if gone {
                    self.tee = None; // the applier gave up; the blob is still wanted
                }
            }
            ingest.write(piece).await.context(|| format!("writing blob {digest}"))?;
            if blob.offset() - told >= NEWS {
                told = blob.offset();
                self.job.tell("downloading", digest.as_str(), (told, size), Some(&self.descriptor));
            }
        }
        if let Some(tee) = self.tee.take() {
            let _ = tee.send(Piece::End).await; // an applier that is gone has said why elsewhere
        }
        Ok(())
    }

    async fn abort(&self) {
        let reference = store::ingest_reference(&self.descriptor);
        if let Err(error) = self.job.shared.stores.content.abort(self.job.scope(), &reference).await {
            tracing::warn!(reference, error = %error.chain(), "damaged ingest is left behind");
        }
    }
}

pub(crate) fn cancelled(descriptor: &Descriptor) -> Error {
    Error::cancelled(format!("nobody waits for {} any more", descriptor.digest))
}
