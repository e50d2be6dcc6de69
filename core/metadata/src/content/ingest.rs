//! A namespaced ingest: the backend's, or none while the blob it is for is there already.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kevel_contract::{
    Scope,
    content::{Commit, Info, Ingest, Status},
};
use kevel_model::{Digest, Error, Result};

use super::{Store, adopting, known, renamed};
use crate::{
    check, event, record,
    state::{Blobs, Ingests},
};

pub(super) struct Writer {
    store: Store,
    scope: Scope,
    record: record::Ingest,
    /// The backend's ingest; none while nothing has to be written.
    inner: Option<Box<dyn Ingest>>,
    /// The blob that another namespace has.
    shared: Option<Arc<Info>>,
}

impl Writer {
    pub(super) fn new(
        store: Store,
        scope: Scope,
        record: record::Ingest,
        inner: Option<Box<dyn Ingest>>,
        shared: Option<Arc<Info>>,
    ) -> Self {
        Self { store, scope, record, inner, shared }
    }

    /// The backend's ingest, opened if it was not needed until now.
    async fn inner(&mut self) -> Result<&mut Box<dyn Ingest>> {
        if self.inner.is_none() {
            self.inner = Some(self.store.open_ingest(&self.scope, &self.record).await?);
            self.shared = None;
        }
        self.inner.as_mut().ok_or_else(|| Error::internal("ingest is not open"))
    }

    /// The size of the blob that is adopted from another namespace, if it is still there.
    fn adopt(&self, shared: &Info, commit: &Commit) -> Result<(Digest, u64)> {
        let digest = &shared.digest;
        if known(&self.store.core.state(), digest).is_none() {
            return Err(Error::aborted(format!("content {digest} was removed meanwhile; begin again")));
        }
        if commit.size != 0 && commit.size != shared.size {
            let (size, want) = (shared.size, commit.size);
            return Err(Error::failed_precondition(format!("content {digest} has {size} bytes, not {want}")));
        }
        match commit.expected.as_ref().filter(|expected| *expected != digest) {
            Some(expected) => Err(Error::failed_precondition(format!("content has digest {digest}, not {expected}"))),
            None => Ok((digest.clone(), shared.size)),
        }
    }

    /// Records the blob in place of the ingest.
    async fn record(&mut self, digest: &Digest, size: u64, commit: Commit) -> Result<()> {
        let (lease, digest, reference) = (self.scope.clone(), digest.clone(), self.record.reference.clone());
        let (backend, name) = (self.record.backend.clone(), digest.clone());
        let new = self
            .store
            .core
            .change(&self.scope.namespace, move |draft| {
                let ingest = draft.key(&[&reference]);
                if draft.state.ingests.get(&ingest).is_some_and(|found| found.backend == backend) {
                    draft.remove::<Ingests>(&ingest);
                }
                draft.unlease(&lease, "ingests", &reference);
                draft.lease(&lease, "content", digest.as_str())?;
                let key = draft.key(&[digest.as_str()]);
                if draft.state.blobs.get(&key).is_some() {
                    return Ok(false);
                }
                let labels = commit.labels;
                let info = Info { digest, size, created_at: draft.now, updated_at: draft.now, labels };
                draft.event("/content/create", event::content_create(&info));
                draft.put::<Blobs>(&key, info);
                Ok(true)
            })
            .await?;
        match new {
            true => Ok(()),
            false => Err(Error::already_exists(format!("content {name} already exists"))),
        }
    }
}

#[async_trait]
impl Ingest for Writer {
    fn status(&self) -> Status {
        match (&self.inner, &self.shared) {
            (Some(inner), _) => renamed(inner.status(), &self.record),
            (None, Some(shared)) => adopting(&self.record, shared),
            (None, None) => Status {
                reference: self.record.reference.clone(),
                offset: 0,
                total: self.record.total,
                expected: self.record.expected.clone(),
                started_at: self.record.started_at,
                updated_at: self.record.started_at,
            },
        }
    }

    async fn digest(&mut self) -> Result<Digest> {
        match &self.shared {
            Some(shared) => Ok(shared.digest.clone()),
            None => self.inner().await?.digest().await,
        }
    }

    async fn write(&mut self, data: Bytes) -> Result<()> {
        if self.shared.is_some() && !data.is_empty() {
            // It is all there: what comes would be past the end.
            return Err(Error::out_of_range(format!(
                "ingest {:?} is complete, the content exists already",
                self.record.reference
            )));
        }
        self.inner().await?.write(data).await
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        if self.shared.as_ref().is_some_and(|shared| shared.size == size) {
            return Ok(());
        }
        self.inner().await?.truncate(size).await
    }

    async fn commit(&mut self, commit: Commit) -> Result<Digest> {
        check::labels(&commit.labels)?;
        let expected = match (&commit.expected, &self.record.expected) {
            (Some(expected), _) | (None, Some(expected)) => expected.clone(),
            (None, None) => self.digest().await?,
        };
        // From before the bytes are in place until they are recorded, the garbage collector must not take them.
        let _claim = self.store.core.blobs.share(expected.as_str()).await;
        let (digest, size) = match &self.shared {
            Some(shared) => self.adopt(shared, &commit)?,
            None => {
                let verified =
                    Commit { expected: Some(expected.clone()), size: commit.size, labels: Default::default() };
                let size = self.inner().await?.status().offset;
                match self.inner().await?.commit(verified).await {
                    Ok(digest) => (digest, size),
                    // Another namespace has it, or a crash left it without a record: the bytes were verified either way.
                    Err(error) if error.is_already_exists() => {
                        let found = self.store.backend.info(&self.scope, &expected).await?;
                        (expected, found.size)
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        self.record(&digest, size, commit).await?;
        Ok(digest)
    }
}
