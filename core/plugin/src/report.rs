//! What became of a plugin.

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
