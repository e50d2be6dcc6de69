//! The namespaced view of the content store: who knows which blob, under which labels.
//!
//! Bytes are the backend's, once per digest; records are per namespace. Under the shared policy a namespace comes to
//! know a blob that another one has by naming its digest; under the isolated policy it has to bring the bytes. Deleting
//! removes the record; the bytes go when no namespace knows them, with the next garbage collection.

mod ingest;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    content::{Backend, Begin, Blob, ContentStore, Info, Ingest, Status},
};
use kevel_model::{Digest, Error, Filters, Result, apply_label_fieldpaths};
use serde::{Deserialize, Serialize};

use crate::{
    check,
    core::{Core, missing},
    event,
    gc::label::let_go,
    record,
    shelf::key,
    state::{Blobs, Ingests, State},
};

/// How long an ingest that no lease keeps may rest before the garbage collector takes it.
const INGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether namespaces come to know each other's blobs by digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SharingPolicy {
    /// A blob that any namespace has is had by naming its digest.
    #[default]
    Shared,
    /// Whoever wants a blob has to bring its bytes.
    Isolated,
}

#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) core: Arc<Core>,
    pub(crate) backend: ContentStore,
    pub(crate) policy: SharingPolicy,
}

#[async_trait]
impl Backend for Store {
    async fn info(&self, scope: &Scope, digest: &Digest) -> Result<Info> {
        Ok(Info::clone(&*self.find(scope, digest)?))
    }

    async fn update(&self, scope: &Scope, info: Info, fieldpaths: &[String]) -> Result<Info> {
        let fieldpaths = fieldpaths.to_vec();
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[info.digest.as_str()]);
                let old = draft.get::<Blobs>(&key, info.digest.as_str())?;
                let mut blob = Info::clone(&old);
                apply_label_fieldpaths(&mut blob.labels, &info.labels, &fieldpaths)?;
                check::labels(&blob.labels)?;
                blob.updated_at = draft.now;
                draft.put::<Blobs>(&key, blob.clone());
                if let_go(&old.labels, &blob.labels) {
                    draft.dirty();
                }
                Ok(blob)
            })
            .await
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>> {
        let state = self.core.state();
        let blobs = state.blobs.under(scope.namespace.as_str());
        Ok(blobs.filter(|(_, info)| filters.matches(&***info)).map(|(_, info)| Info::clone(info)).collect())
    }

    async fn delete(&self, scope: &Scope, digest: &Digest) -> Result<()> {
        let (lease, digest) = (scope.clone(), digest.clone());
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[digest.as_str()]);
                draft.get::<Blobs>(&key, digest.as_str())?;
                draft.remove::<Blobs>(&key);
                draft.unlease(&lease, "content", digest.as_str());
                draft.event("/content/delete", event::content_delete(digest.as_str()));
                Ok(())
            })
            .await
    }

    async fn open(&self, scope: &Scope, digest: &Digest) -> Result<Box<dyn Blob>> {
        self.find(scope, digest)?;
        self.backend.open(scope, digest).await
    }

    async fn status(&self, scope: &Scope, reference: &str) -> Result<Status> {
        let state = self.core.state();
        let ingest = state.ingests.get(&key(&scope.namespace, &[reference]));
        let ingest = ingest.cloned().ok_or_else(|| missing::<Ingests>(reference))?;
        self.status_of(scope, &state, &ingest).await
    }

    async fn statuses(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Status>> {
        let state = self.core.state();
        let mut statuses = Vec::new();
        for (_, ingest) in state.ingests.under(scope.namespace.as_str()) {
            match self.status_of(scope, &state, ingest).await {
                Ok(status) if filters.matches(&status) => statuses.push(status),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {} // committed or aborted meanwhile
                Err(error) => return Err(error),
            }
        }
        Ok(statuses)
    }

    async fn begin(&self, scope: &Scope, begin: Begin) -> Result<Box<dyn Ingest>> {
        check::name("ingest reference", &begin.reference)?;
        let record = self.record(scope, &begin).await?;
        let state = self.core.state();
        let shared = record.expected.as_ref().filter(|_| self.policy == SharingPolicy::Shared);
        let mut shared = shared.and_then(|digest| known(&state, digest));
        if let Some(info) = &shared
            && !self.backend.info(scope, &info.digest).await.is_ok_and(|found| found.size == info.size)
        {
            shared = None; // a record without its bytes is nothing to adopt: they are brought again
        }
        let inner = match &shared {
            Some(_) => None,
            None => Some(self.open_ingest(scope, &record).await?),
        };
        Ok(Box::new(ingest::Writer::new(self.clone(), scope.clone(), record, inner, shared)))
    }

    async fn abort(&self, scope: &Scope, reference: &str) -> Result<()> {
        let (lease, reference) = (scope.clone(), reference.to_owned());
        let ingest = self
            .core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[&reference]);
                let ingest = draft.get::<Ingests>(&key, &reference)?;
                draft.remove::<Ingests>(&key);
                draft.unlease(&lease, "ingests", &reference);
                Ok(ingest)
            })
            .await?;
        match self.backend.abort(scope, &ingest.backend).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// What some namespace knows of a blob.
fn known(state: &State, digest: &Digest) -> Option<Arc<Info>> {
    let mut namespaces = state.namespaces.all();
    namespaces.find_map(|(namespace, _)| state.blobs.get(&format!("{namespace}\0{digest}")).cloned())
}

impl Store {
    fn find(&self, scope: &Scope, digest: &Digest) -> Result<Arc<Info>> {
        let state = self.core.state();
        let blob = state.blobs.get(&key(&scope.namespace, &[digest.as_str()]));
        blob.cloned().ok_or_else(|| missing::<Blobs>(digest.as_str()))
    }

    /// How far an ingest is, under its client's name. One that waits to adopt a blob is as far as can be.
    async fn status_of(&self, scope: &Scope, state: &State, ingest: &record::Ingest) -> Result<Status> {
        match self.backend.status(scope, &ingest.backend).await {
            Ok(status) => Ok(renamed(status, ingest)),
            Err(error) if error.is_not_found() && self.policy == SharingPolicy::Shared => {
                let blob = ingest.expected.as_ref().and_then(|digest| known(state, digest));
                blob.map(|blob| adopting(ingest, &blob)).ok_or_else(|| missing::<Ingests>(&ingest.reference))
            }
            Err(error) => Err(error),
        }
    }

    /// Finds the ingest of this name, or records a new one.
    async fn record(&self, scope: &Scope, begin: &Begin) -> Result<record::Ingest> {
        let fresh = self.core.backend_name(&scope.namespace, &begin.reference);
        let (lease, begin) = (scope.clone(), begin.clone());
        self.core
            .change(&scope.namespace, move |draft| {
                if let Some(digest) = &begin.expected
                    && let Err(exists) = draft.vacant::<Blobs>(&draft.key(&[digest.as_str()]), digest.as_str())
                {
                    // Whoever wanted to write it under a lease counts on it from here on.
                    draft.lease(&lease, "content", digest.as_str())?;
                    return Ok(Err(exists));
                }
                draft.lease(&lease, "ingests", &begin.reference)?;
                let key = draft.key(&[&begin.reference]);
                if let Some(found) = draft.state.ingests.get(&key).cloned() {
                    let same = begin.expected.is_none() || found.expected.is_none() || begin.expected == found.expected;
                    if !same {
                        let reference = &begin.reference;
                        return Err(Error::invalid_argument(format!(
                            "ingest {reference:?} was begun for another digest; abort it first"
                        )));
                    }
                    let mut found = record::Ingest::clone(&found);
                    if found.expected.is_none() && begin.expected.is_some() {
                        found.expected = begin.expected;
                        draft.put::<Ingests>(&key, found.clone());
                    }
                    return Ok(Ok(found));
                }
                let ingest = record::Ingest {
                    reference: begin.reference,
                    backend: fresh,
                    expected: begin.expected,
                    total: begin.total,
                    started_at: draft.now,
                    expires_at: draft.now + INGEST_LIFE,
                };
                draft.put::<Ingests>(&key, ingest.clone());
                Ok(Ok(ingest))
            })
            .await?
    }

    /// Opens the backend's ingest. The backend may have a blob that this namespace must not know of yet; then the bytes
    /// are taken without saying what they are.
    async fn open_ingest(&self, scope: &Scope, record: &record::Ingest) -> Result<Box<dyn Ingest>> {
        let begin = |expected| Begin { reference: record.backend.clone(), total: record.total, expected };
        match self.backend.begin(scope, begin(record.expected.clone())).await {
            Err(error) if error.is_already_exists() && record.expected.is_some() => {
                self.backend.begin(scope, begin(None)).await
            }
            other => other,
        }
    }
}

/// The backend's status under the client's name.
fn renamed(status: Status, ingest: &record::Ingest) -> Status {
    let expected = ingest.expected.clone().or(status.expected);
    Status { reference: ingest.reference.clone(), expected, ..status }
}

/// The status of an ingest whose blob is there already.
fn adopting(ingest: &record::Ingest, blob: &Info) -> Status {
    Status {
        reference: ingest.reference.clone(),
        offset: blob.size,
        total: blob.size,
        expected: Some(blob.digest.clone()),
        started_at: ingest.started_at,
        updated_at: ingest.started_at,
    }
}
