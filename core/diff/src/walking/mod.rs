//! The differ `walking`: layers of the content store applied to mounts, and mounts compared into layers.

mod apply;
mod bridge;
mod compare;
mod plugin;
mod target;

pub use plugin::Plugin;

use std::path::PathBuf;

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    content::ContentStore,
    diff::{Apply, Backend, Compare},
};
use kevel_model::{Descriptor, Error, Mount, Result};

use crate::Processors;

/// The differ. One value serves any number of calls at once.
#[derive(Clone, Debug)]
pub struct Walking {
    content: ContentStore,
    /// Where temporary mount points are made.
    mounts: PathBuf,
    /// What turns layers of other media types into archives.
    processors: Processors,
}

impl Walking {
    /// A differ over `content` that mounts what it must beneath the directory `mounts`.
    pub fn new(content: ContentStore, mounts: impl Into<PathBuf>) -> Self {
        Self { content, mounts: mounts.into(), processors: Processors::default() }
    }

    /// The same with stream processors.
    #[must_use]
    pub fn with_processors(self, processors: Processors) -> Self {
        Self { processors, ..self }
    }
}

#[async_trait]
impl Backend for Walking {
    async fn apply(&self, scope: &Scope, layer: &Descriptor, mounts: &[Mount], apply: Apply) -> Result<Descriptor> {
        self.apply_layer(scope, layer, mounts, apply).await
    }

    async fn compare(&self, scope: &Scope, lower: &[Mount], upper: &[Mount], compare: Compare) -> Result<Descriptor> {
        self.make_layer(scope, lower, upper, compare).await
    }
}

/// Runs `work`, which blocks, where it may. It is not stopped when the caller goes away.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("working on a layer").with_source(error)),
    }
}
