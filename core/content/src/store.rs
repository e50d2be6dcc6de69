//! The store as its contract wants it: every call runs off the runtime's threads.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    content::{Backend, Begin, Blob, Info, Ingest, Status},
};
use kevel_model::{Digest, Filters, Result};

use crate::{
    blob::OpenBlob,
    error::{self, Error},
    ingest::Writer,
    layout::{Layout, check_reference},
    lock::Locks,
};

/// A content store in a directory. Cheap to clone.
#[derive(Clone)]
pub struct LocalStore {
    layout: Arc<Layout>,
    locks: Locks,
}

impl LocalStore {
    /// Opens the store in `root`, which is made when missing. One process at a time: locks are not seen by others.
    pub async fn open(root: &Path) -> Result<Self> {
        let root = root.to_owned();
        let layout = blocking(move || Layout::open(&root)).await?;
        Ok(Self { layout: Arc::new(layout), locks: Locks::default() })
    }

    async fn on_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout) -> error::Result<T> + Send + 'static,
    ) -> Result<T> {
        let layout = Arc::clone(&self.layout);
        blocking(move || work(&layout)).await
    }
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> error::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Internal("file access of the content store panicked").into()),
    }
}

#[async_trait]
impl Backend for LocalStore {
    async fn info(&self, _: &Scope, digest: &Digest) -> Result<Info> {
        let digest = digest.clone();
        self.on_files(move |layout| layout.info(&digest)).await
    }

    async fn update(&self, _: &Scope, info: Info, _: &[String]) -> Result<Info> {
        self.on_files(move |layout| {
            layout.info(&info.digest)?;
            Err(Error::Immutable(info.digest))
        })
        .await
    }

    async fn list(&self, _: &Scope, filters: &Filters) -> Result<Vec<Info>> {
        let mut infos = self.on_files(Layout::infos).await?;
        infos.retain(|info| filters.matches(info));
        Ok(infos)
    }

    async fn delete(&self, _: &Scope, digest: &Digest) -> Result<()> {
        let digest = digest.clone();
        self.on_files(move |layout| layout.delete(&digest)).await
    }

    async fn open(&self, _: &Scope, digest: &Digest) -> Result<Box<dyn Blob>> {
        let digest = digest.clone();
        Ok(Box::new(self.on_files(move |layout| OpenBlob::open(layout, digest)).await?))
    }

    async fn status(&self, _: &Scope, reference: &str) -> Result<Status> {
        let reference = reference.to_owned();
        self.on_files(move |layout| layout.status(&reference)).await
    }

    async fn statuses(&self, _: &Scope, filters: &Filters) -> Result<Vec<Status>> {
        let mut statuses = self.on_files(Layout::statuses).await?;
        statuses.retain(|status| filters.matches(status));
        Ok(statuses)
    }

    async fn begin(&self, _: &Scope, begin: Begin) -> Result<Box<dyn Ingest>> {
        check_reference(&begin.reference)?;
        let held = self.locks.take(&begin.reference).await?;
        let layout = Arc::clone(&self.layout);
        let writer = blocking(move || Writer::open(layout, held, begin)).await?;
        Ok(Box::new(writer))
    }

    async fn abort(&self, _: &Scope, reference: &str) -> Result<()> {
        check_reference(reference)?;
        let reference = reference.to_owned();
        self.on_files(move |layout| layout.abort(&reference)).await
    }
}
