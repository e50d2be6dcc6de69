//! What became of a plugin, and of all of them.

use std::sync::{Arc, PoisonError, RwLock};

use crate::Declared;

/// How a start ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginStatus {
    /// It runs.
    Ok,
    /// It is not for this node; why.
    Skip(String),
    /// It failed; why.
    Error(String),
}

/// A plugin, as introspection shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The type half of its URI.
    pub type_name: String,
    /// The id half of its URI.
    pub id: String,
    /// Types that it needs.
    pub requires: Vec<String>,
    /// What it declared of itself.
    pub declared: Declared,
    /// How its start ended.
    pub status: PluginStatus,
    /// Keys in its configuration that it does not know.
    pub unknown_keys: Vec<String>,
}

impl Report {
    /// Type and id.
    pub fn uri(&self) -> String {
        format!("{}.{}", self.type_name, self.id)
    }
}

/// What became of the plugins of one graph, in the order of their start. Clones share it: whoever took one from its
/// [`InitContext`](crate::InitContext) sees those that start later, too.
#[derive(Clone, Debug, Default)]
pub struct Reports(Arc<RwLock<Vec<Arc<Report>>>>);

impl Reports {
    /// Every plugin that was tried so far.
    pub fn all(&self) -> Vec<Arc<Report>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The plugin of that type and id, if it was tried.
    pub fn find(&self, type_name: &str, id: &str) -> Option<Arc<Report>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|report| report.type_name == type_name && report.id == id).cloned()
    }

    /// Adds a plugin; the graph does so for each that it tries.
    pub fn push(&self, report: Arc<Report>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}
