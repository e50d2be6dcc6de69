//! Layers into snapshots. Where the snapshotter can rebase, each layer is applied by itself as it arrives and only the
//! commits are in order; elsewhere a layer waits for its parent while the ones above it are downloaded.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use kevel_contract::{snapshot::Commit, trace};
use kevel_diff::Layer;
use kevel_model::{Code, Context as _, Descriptor, Digest, Error, Labels, Mount, Result};
use tokio::sync::{SemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    Snapshotting,
    apply::{self, Piece},
    fetch::cancelled,
    flight::Ticket,
    labels,
    service::{Job, Shared},
    store,
};

/// What to unpack into what.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) snapshotting: Snapshotting,
    pub(crate) reference: String,
    pub(crate) manifest: Descriptor,
    /// Lowest first, as are diff ids and chain ids.
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) chain: Vec<Digest>,
    pub(crate) labels: Labels,
    pub(crate) annotate: bool,
}

/// One layer on its way into a snapshot.
struct Step {
    job: Job,
    target: Arc<Target>,
    index: usize,
    /// The layer below, if this is not the lowest.
    parent: Option<Arc<Ticket>>,
}

impl Shared {
    /// A snapshotter by name, the default without one.
    pub(crate) fn snapshotter(&self, name: &str) -> Result<(String, &Snapshotting)> {
        let name = if name.is_empty() { &self.config.snapshotter } else { name };
        let found = self.snapshotters.get(name);
        Ok((name.to_owned(), found.ok_or_else(|| Error::not_found(format!("there is no snapshotter {name:?}")))?))
    }
}

impl Job {
    /// Unpacks all layers that are not unpacked yet.
    pub(crate) async fn unpack(&self, target: Target) -> Result<()> {
        let Some(top) = target.chain.last() else { return Ok(()) };
        let resource = format!("snapshots/{}", target.name);
        let leases = &self.shared.stores.leases;
        if exists(self, &target, top).await? {
            for layer in &target.layers {
                self.tell("already exists", layer.digest.as_str(), (layer.size, layer.size), Some(layer));
            }
            return store::keep(leases, self.scope(), &resource, top.as_str()).await;
        }
        let target = Arc::new(target);
        let mut tickets: Vec<Arc<Ticket>> = Vec::new();
        for index in 0..target.layers.len() {
            let parent = tickets.last().cloned();
            let key = (self.scope().namespace.clone(), target.name.clone(), target.chain[index].clone());
            let step = Step { job: self.clone(), target: Arc::clone(&target), index, parent };
            tickets.push(Arc::new(self.shared.chains.join(key, |stop| async move { step.run(&stop).await })));
        }
        futures::future::try_join_all(tickets.iter().map(|ticket| ticket.wait())).await?;
        // What somebody else's transfer unpacked is kept by its lease only; the top keeps all below it.
        let top = &target.chain[target.chain.len() - 1];
        if tickets.last().is_some_and(|ticket| !ticket.leads) {
            store::keep(leases, self.scope(), &resource, top.as_str()).await?;
        }
        Ok(())
    }
}

async fn exists(job: &Job, target: &Target, chain: &Digest) -> Result<bool> {
    match target.snapshotting.snapshotter.stat(job.scope(), chain.as_str()).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.context(format!("looking for snapshot {chain}"))),
    }
}

impl Step {
    fn layer(&self) -> &Descriptor {
        &self.target.layers[self.index]
    }

    fn chain(&self) -> &Digest {
        &self.target.chain[self.index]
    }

    fn parent_chain(&self) -> Option<&Digest> {
        self.index.checked_sub(1).map(|below| &self.target.chain[below])
    }

    /// Whether the snapshot is made without its parent, which comes with the commit.
    fn rebases(&self) -> bool {
        self.target.snapshotting.rebases && !self.target.annotate
    }

    async fn run(self, stop: &CancellationToken) -> Result<()> {
        let doing = || format!("layer {} ({})", self.index, self.layer().digest);
        if exists(&self.job, &self.target, self.chain()).await? {
            // Kept for the layer above, which is not there yet.
            let resource = format!("snapshots/{}", self.target.name);
            return store::keep(&self.job.shared.stores.leases, self.job.scope(), &resource, self.chain().as_str())
                .await;
        }
        if !self.rebases() {
            // The download need not wait, unless the snapshotter may bring the layer itself.
            let ahead = (!self.target.annotate && self.parent.is_some() && !self.job.has_blob(self.layer()).await?)
                .then(|| self.job.join_download(self.layer(), None));
            self.wait_parent(stop).await?;
            let done = self.fill_and_commit(stop).await.context(doing);
            drop(ahead);
            return done;
        }
        self.fill_and_commit(stop).await.context(doing)
    }

    async fn wait_parent(&self, stop: &CancellationToken) -> Result<()> {
        let Some(parent) = &self.parent else { return Ok(()) };
        tokio::select! {
            done = parent.wait() => done,
            () = stop.cancelled() => Err(cancelled(self.layer())),
        }
    }

    async fn fill_and_commit(&self, stop: &CancellationToken) -> Result<()> {
        let permit = self.permit(stop).await?;
        let stored = self.job.has_blob(self.layer()).await?;
        let done = self.fill_once(permit, stop).await;
        match done {
            Err(error) if stored && !stop.is_cancelled() && may_be_damage(&error) => {
                // What the node has may have been damaged since it was verified.
                if self.job.session.is_none() || !self.job.is_damaged(self.layer()).await? {
                    return Err(error);
                }
                let permit = self.permit(stop).await?;
                self.fill_once(permit, stop).await
            }
            done => done,
        }
    }

    async fn permit(&self, stop: &CancellationToken) -> Result<SemaphorePermit<'_>> {
        tokio::select! {
            permit = self.job.unpacks.acquire() => permit.map_err(|_| cancelled(self.layer())),
            () = stop.cancelled() => Err(cancelled(self.layer())),
        }
    }

    async fn fill_once(&self, permit: SemaphorePermit<'_>, stop: &CancellationToken) -> Result<()> {
        let key = extract_key(self.chain());
        let Some(mounts) = self.prepare(&key).await? else { return Ok(()) };
        let filling = trace::within(format_args!("unpack {}", self.layer().digest), self.fill(mounts, stop));
        let done = match filling.await {
            Err(error) => Err(error),
            Ok(layer) => {
                drop(permit); // waiting for the parent is no work
                match self.wait_parent(stop).await {
                    Ok(()) => self.commit(&key, layer).await,
                    Err(error) => Err(error),
                }
            }
        };
        if done.is_err() {
            self.remove(&key).await;
        }
        done
    }

    /// Prepares the snapshot; `None` if it turns out that it is there already.
    async fn prepare(&self, key: &str) -> Result<Option<Vec<Mount>>> {
        let parent = if self.rebases() { "" } else { self.parent_chain().map_or("", Digest::as_str) };
        let snapshotter = &self.target.snapshotting.snapshotter;
        match snapshotter.prepare(self.job.scope(), key, parent, self.labels()).await {
            Ok(mounts) => Ok(Some(mounts)),
            // A remote snapshotter that has the layer says so in this way.
            Err(error) if error.is_already_exists() && exists(&self.job, &self.target, self.chain()).await? => Ok(None),
            Err(error) => Err(error.context(format!("preparing snapshot {key:?}"))),
        }
    }

    fn labels(&self) -> Labels {
        // Annotations of an image may speak to the snapshotter, but not about owners: those are the node's business.
        let mapping = ["containerd.io/snapshot/uidmapping", "containerd.io/snapshot/gidmapping"];
        let layer = self.layer();
        let inherited = layer.annotations.iter().filter(|(key, value)| {
            key.starts_with("containerd.io/snapshot/")
                && !mapping.contains(&key.as_str())
                && key.len() + value.len() <= 4096
        });
        let mut all: Labels = inherited.map(|(key, value)| (key.clone(), value.clone())).collect();
        all.extend(self.target.labels.clone());
        if self.target.annotate {
            let (target, above) = (&self.target, &self.target.layers[self.index..]);
            all.extend(labels::annotations(&target.reference, &target.manifest, above));
        }
        all.insert(labels::TARGET.to_owned(), self.chain().to_string());
        all
    }

    /// Applies the layer: from the store if the blob is there, else as it arrives.
    async fn fill(&self, mounts: Vec<Mount>, stop: &CancellationToken) -> Result<Layer> {
        let layer = self.layer();
        self.job.tell("extracting", layer.digest.as_str(), (0, layer.size), Some(layer));
        let stored = self.job.has_blob(layer).await?;
        if !stored && self.job.downloaded(layer).await == 0 {
            let (tee, source, signal) = apply::pipe();
            let ticket = self.job.join_download(layer, Some(tee));
            if ticket.leads {
                return self.fill_as_it_arrives(ticket, (source, signal), mounts, stop).await;
            }
            self.wait_blob(&ticket, stop).await?;
        } else if !stored {
            let ticket = self.job.join_download(layer, None);
            self.wait_blob(&ticket, stop).await?;
        }
        let (sender, source, _) = apply::pipe();
        let pump = tokio::spawn(pump(self.job.clone(), layer.clone(), sender, stop.clone()).in_current_span());
        let applied = self.apply(source, mounts).await;
        match (pump.await.map_err(|error| Error::internal("the reader died").with_source(error))?, applied) {
            (Err(error), Err(_)) => Err(error),
            (_, applied) => self.verify(applied?),
        }
    }

    /// Applies the layer while it is downloaded.
    async fn fill_as_it_arrives(
        &self,
        ticket: Ticket,
        (source, signal): (apply::Pipe, Arc<apply::Signal>),
        mounts: Vec<Mount>,
        stop: &CancellationToken,
    ) -> Result<Layer> {
        let (fail, failed) = oneshot::channel::<()>();
        let applying = self.apply(source, mounts).in_current_span();
        let applying = tokio::spawn(async move {
            let applied = applying.await;
            if applied.is_err() {
                let _ = fail.send(()); // nobody listens once the download has ended
            }
            applied
        });
        let fetched = tokio::select! {
            fetched = self.job.wait_download(&ticket, self.layer()) => Some(fetched),
            () = stop.cancelled() => Some(Err(cancelled(self.layer()))),
            Ok(()) = failed => None,
        };
        // A download that others still wait for goes on without this applier; one that nobody waits for ends.
        let cause = if stop.is_cancelled() {
            signal.halt.store(true, Ordering::Release);
            drop(ticket);
            None
        } else {
            Some(ticket)
        };
        // Waited for even when the download failed: the snapshot must not be removed under the applier.
        let applied = applying.await.map_err(|error| Error::internal("the applier died").with_source(error))?;
        match (fetched, applied) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(())), applied) => self.verify(applied?),
            // The applier lost its source: the download knows why.
            (None, Err(error)) if signal.broken.load(Ordering::Acquire) => match cause {
                Some(ticket) => Err(ticket.wait().await.err().unwrap_or(error)),
                None => Err(error),
            },
            (None, applied) => self.verify(applied?),
        }
    }

    async fn wait_blob(&self, ticket: &Ticket, stop: &CancellationToken) -> Result<()> {
        tokio::select! {
            done = self.job.wait_download(ticket, self.layer()) => done,
            () = stop.cancelled() => Err(cancelled(self.layer())),
        }
    }

    fn apply(&self, source: apply::Pipe, mounts: Vec<Mount>) -> impl Future<Output = Result<Layer>> + Send + 'static {
        let rebased = self.rebases() && self.index > 0;
        let how = apply::How {
            layer: self.layer().clone(),
            rebased,
            scratch: self.job.shared.mounts.clone(),
            processors: self.job.shared.processors.clone(),
            sync_fs: self.job.sync_fs,
        };
        let applying = tokio::task::spawn_blocking(move || apply::apply(source, &mounts, &how));
        async move { applying.await.map_err(|error| Error::internal("the applier died").with_source(error))? }
    }

    fn verify(&self, layer: Layer) -> Result<Layer> {
        let want = &self.target.diff_ids[self.index];
        if layer.diff_id == *want {
            return Ok(layer);
        }
        let message = format!("unpacks to {} where the image config says {want}", layer.diff_id);
        Err(Error::data_loss(message))
    }

    async fn commit(&self, key: &str, layer: Layer) -> Result<()> {
        let (scope, chain) = (self.job.scope(), self.chain());
        let parent = self.parent_chain().filter(|_| self.rebases()).map(ToString::to_string);
        let commit = Commit { labels: self.labels(), parent };
        match self.target.snapshotting.snapshotter.commit(scope, chain.as_str(), key, commit).await {
            Ok(()) => {}
            Err(error) if error.is_already_exists() => self.remove(key).await,
            Err(error) => return Err(error.context(format!("committing snapshot {chain}"))),
        }
        let label = (labels::UNCOMPRESSED.to_owned(), layer.diff_id.to_string());
        let digest = &self.layer().digest;
        store::label(&self.job.shared.stores.content, scope, digest, Labels::from([label])).await?;
        let size = self.layer().size;
        self.job.tell("extracted", digest.as_str(), (size, size), Some(self.layer()));
        tracing::debug!(layer = %digest, chain = %chain, entries = layer.applied.entries, "layer unpacked");
        Ok(())
    }

    async fn remove(&self, key: &str) {
        if let Err(error) = self.target.snapshotting.snapshotter.remove(self.job.scope(), key).await
            && !error.is_not_found()
        {
            tracing::warn!(key, error = %error.chain(), "unfinished snapshot is left to the garbage collector");
        }
    }
}

/// Whether an error may come from a blob that is not what it was when it was stored.
fn may_be_damage(error: &Error) -> bool {
    matches!(error.code(), Code::DataLoss | Code::InvalidArgument | Code::NotFound | Code::Internal | Code::Unknown)
}

/// Reads a blob from the store into a pipe.
pub(crate) async fn pump(
    job: Job,
    layer: Descriptor,
    sender: mpsc::Sender<Piece>,
    stop: CancellationToken,
) -> Result<()> {
    let blob = job.shared.stores.content.open(job.scope(), &layer.digest).await?;
    let mut offset = 0;
    while offset < blob.size() {
        let data = blob.read_at(offset, store::READ).await.context(|| format!("reading {}", layer.digest))?;
        if data.is_empty() {
            return Err(Error::data_loss(format!("content {} ends after {offset} bytes", layer.digest)));
        }
        offset += data.len() as u64;
        tokio::select! {
            sent = sender.send(Piece::Data(data, None)) => {
                if sent.is_err() {
                    return Ok(()); // the applier says why
                }
            }
            () = stop.cancelled() => return Err(cancelled(&layer)),
        }
    }
    let _ = sender.send(Piece::End).await; // the same
    Ok(())
}

/// A key that no other extraction has, in containerd's form.
fn extract_key(chain: &Digest) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("extract-{}-{:04} {chain}", now.as_nanos(), NEXT.fetch_add(1, Ordering::Relaxed) % 10_000)
}
