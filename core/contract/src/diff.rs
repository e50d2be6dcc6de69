//! Diffs: layers applied to mounts, and mounts compared into layers.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kevel_model::{Any, Descriptor, Labels, Mount, Result};
use kevel_plugin::Kind;

use crate::{Scope, call::handle};

/// Differs by name: `io.containerd.differ.v1`.
pub enum Differs {}

impl Kind for Differs {
    const TYPE: &'static str = "io.containerd.differ.v1";
    type Handle = Differ;
}

/// The diff service, which asks the configured differs in turn: `io.containerd.service.v1.diff-service`.
pub enum DiffService {}

impl Kind for DiffService {
    const TYPE: &'static str = "io.containerd.service.v1";
    type Handle = Differ;
}

/// How to apply a layer.
#[derive(Clone, Debug, Default)]
pub struct Apply {
    /// Options for stream processors, by media type or processor.
    pub payloads: BTreeMap<String, Any>,
    /// Flush the file system before answering.
    pub sync_fs: bool,
}

/// How to compare.
#[derive(Clone, Debug, Default)]
pub struct Compare {
    /// Media type of the layer to make; empty means gzip-compressed OCI.
    pub media_type: String,
    /// Name of the ingest; empty means one of the differ's.
    pub reference: String,
    /// Labels of the new blob.
    pub labels: Labels,
    /// Time stamp of everything in the layer, for reproducible ones.
    pub source_date_epoch: Option<std::time::SystemTime>,
}

/// A differ, for whoever writes one. Both calls may answer "unimplemented" (for a media type or mount they don't
/// know), and the next differ is asked.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Applies a layer from the content store to mounts; answers the descriptor of the uncompressed layer.
    async fn apply(&self, scope: &Scope, layer: &Descriptor, mounts: &[Mount], apply: Apply) -> Result<Descriptor>;
    /// Makes a layer of what `upper` has other than `lower`, in the content store; answers its descriptor.
    async fn compare(&self, scope: &Scope, lower: &[Mount], upper: &[Mount], compare: Compare) -> Result<Descriptor>;
}

handle! {
    /// A differ, for whoever uses one.
    Differ over Backend {
        /// Applies a layer.
        fn apply(scope: &Scope, layer: &Descriptor, mounts: &[Mount], apply: Apply) -> Descriptor;
        /// Makes a layer.
        fn compare(scope: &Scope, lower: &[Mount], upper: &[Mount], compare: Compare) -> Descriptor;
    }
}
