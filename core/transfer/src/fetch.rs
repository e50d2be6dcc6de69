//! Content from the registry into the store: documents whole, blobs as streams.

use std::time::Duration;

use bytes::Bytes;
use kevel_contract::{
    content::{Begin, Commit, Ingest},
    trace,
};
use kevel_model::{Code, Context as _, Descriptor, Error, Labels, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{apply::Piece, flight::Ticket, labels, service::Job, store, unpack::pump};

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
        if let Some(body) = self.stored_document(descriptor).await? {
            let content = &self.shared.stores.content;
            store::label(content, self.scope(), &descriptor.digest, self.with_source(label(&body)?)).await?;
            return Ok(body);
        }
        let session = self.session.as_ref().ok_or_else(|| not_here(descriptor))?;
        self.tell("downloading", descriptor.digest.as_str(), (0, descriptor.size), Some(descriptor));
        let fetched = async { Ok(session.document(descriptor).await?) };
        let body = self.patiently(descriptor.digest.as_str(), fetched).await?;
        let labels = self.with_source(label(&body)?);
        store::write(&self.shared.stores.content, self.scope(), descriptor, body.clone(), labels).await?;
        self.tell("complete", descriptor.digest.as_str(), (descriptor.size, descriptor.size), Some(descriptor));
        Ok(body)
    }

    /// A document of the store, if it is there and whole.
    async fn stored_document(&self, descriptor: &Descriptor) -> Result<Option<Bytes>> {
        let (stores, scope, digest) = (&self.shared.stores, self.scope(), &descriptor.digest);
        if store::find(&stores.content, scope, digest).await?.is_none() {
            return Ok(None);
        }
        store::keep(&stores.leases, scope, "content", digest.as_str()).await?;
        let damage = match store::read(&stores.content, scope, digest).await {
            Ok(body) => {
                let mut hasher = digest.hasher();
                hasher.update(&body);
                if hasher.finish() == *digest {
                    return Ok(Some(body));
                }
                Error::data_loss(format!("content {digest} is damaged on this node"))
            }
            Err(error) if error.is_not_found() || error.code() == Code::DataLoss => error,
            Err(error) => return Err(error),
        };
        self.forget_damaged(descriptor, damage).await.map(|()| None)
    }

    /// Forgets content whose record outlived its bytes, as after a crash, so that it can be fetched again. Fails with
    /// `damage` where there is no registry to fetch it from.
    async fn forget_damaged(&self, descriptor: &Descriptor, damage: Error) -> Result<()> {
        if self.session.is_none() {
            return Err(damage);
        }
        let digest = &descriptor.digest;
        tracing::warn!(%digest, error = damage.chain(), "content is lost or damaged, fetching it again");
        let stores = &self.shared.stores;
        match stores.content.delete(self.scope(), digest).await {
            Err(error) if !error.is_not_found() => return Err(error.context(format!("forgetting {digest}"))),
            _ => {}
        }
        // Has the bytes that are wrong removed, unless another namespace relies on them.
        stores.garbage.collect().await.map(drop)
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
        let (stores, digest) = (&self.shared.stores, &descriptor.digest);
        let Some(info) = store::find(&stores.content, self.scope(), digest).await? else { return Ok(false) };
        if info.size != descriptor.size {
            let (has, said) = (info.size, descriptor.size);
            return Err(Error::data_loss(format!("blob {digest} has {has} bytes where {said} were announced")));
        }
        store::keep(&stores.leases, self.scope(), "content", digest.as_str()).await?;
        let damage = match stores.content.open(self.scope(), digest).await {
            Ok(blob) if blob.size() == info.size => return Ok(true),
            Ok(blob) => Error::data_loss(format!("blob {digest} has {} of its {} bytes", blob.size(), info.size)),
            Err(error) if error.is_not_found() => error,
            Err(error) => return Err(error),
        };
        self.forget_damaged(descriptor, damage).await.map(|()| false)
    }

    /// Whether a blob of the store is not what its digest says; one that is not is forgotten.
    pub(crate) async fn is_damaged(&self, descriptor: &Descriptor) -> Result<bool> {
        let digest = &descriptor.digest;
        let damage = match store::hash(&self.shared.stores.content, self.scope(), digest).await {
            Ok(found) if found == *digest => return Ok(false),
            Ok(found) => Error::data_loss(format!("blob {digest} has digest {found}")),
            Err(error) if error.is_not_found() || error.code() == Code::DataLoss => error,
            Err(error) => return Err(error),
        };
        self.forget_damaged(descriptor, damage).await.map(|()| true)
    }

    /// Joins the download of a blob, or starts it. What is downloaded goes to `tee` too if this started it.
    pub(crate) fn join_download(&self, descriptor: &Descriptor, tee: Option<mpsc::Sender<Piece>>) -> Ticket {
        let key = (self.scope().namespace.clone(), descriptor.digest.clone());
        self.shared.blobs.join(key, |stop| {
            let download = Download { job: self.clone(), descriptor: descriptor.clone(), tee };
            async move {
                let digest = download.descriptor.digest.clone();
                let work = trace::within(format_args!("fetch {digest}"), download.run(&stop));
                work.await
            }
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
        let Some(mut ingest) = self.begin(stop).await? else { return self.replay(stop).await };
        // All of it is there already: another namespace has it, or a download came as far as that.
        let whole = ingest.status().offset == self.descriptor.size;
        if !whole {
            if ingest.status().offset > 0 {
                self.tee = None; // the beginning is not coming again
            }
            if ingest.status().offset > self.descriptor.size {
                ingest.truncate(0).await?;
            }
            self.receive(ingest.as_mut(), stop).await?;
        }
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
        self.replay(stop).await
    }

    /// Gives the applier what is in the store, if it did not get it as it came.
    async fn replay(&mut self, stop: &CancellationToken) -> Result<()> {
        match self.tee.take() {
            Some(tee) => pump(self.job.clone(), self.descriptor.clone(), tee, stop.clone()).await,
            None => Ok(()),
        }
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
                Err(error) if is_locked(&error) && tokio::time::Instant::now() < until => {
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
        let session = self.job.session.clone().ok_or_else(|| not_here(&self.descriptor))?;
        let offset = ingest.status().offset;
        let (size, mut told) = (self.descriptor.size, offset);
        let (job, budget, parts) = (&self.job, &self.job.shared.budget, self.job.parts);
        let _permit = tokio::select! {
            permit = job.downloads.acquire() => permit.map_err(|_| cancelled(&self.descriptor))?,
            () = stop.cancelled() => return Err(cancelled(&self.descriptor)),
        };
        job.tell("downloading", digest.as_str(), (offset, size), Some(&self.descriptor));
        let opening = async { Ok(session.fetch(&self.descriptor, offset, parts, budget).await?) };
        let mut blob = tokio::select! {
            blob = job.patiently(digest.as_str(), opening) => blob?,
            () = stop.cancelled() => return Err(cancelled(&self.descriptor)),
        };
        loop {
            let arriving = async { Ok(blob.next().await?) };
            let piece = tokio::select! {
                piece = job.patiently(digest.as_str(), arriving) => piece?,
                () = stop.cancelled() => return Err(cancelled(&self.descriptor)),
            };
            let Some((piece, room)) = piece else { break };
            if let Some(tee) = &self.tee {
                let sent = async {
                    let room = if room.is_some() { room } else { budget.bytes(piece.len()).await };
                    tee.send(Piece::Data(piece.clone(), room)).await
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
                job.tell("downloading", digest.as_str(), (told, size), Some(&self.descriptor));
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

fn not_here(descriptor: &Descriptor) -> Error {
    Error::not_found(format!("content {} is not on this node", descriptor.digest))
}

/// Whether somebody else writes the ingest. A content store that can't be reached is unavailable, too, and not waited for.
fn is_locked(error: &Error) -> bool {
    error.code() == Code::Unavailable && error.chain().contains("locked")
}

pub(crate) fn cancelled(descriptor: &Descriptor) -> Error {
    Error::cancelled(format!("nobody waits for {} any more", descriptor.digest))
}
