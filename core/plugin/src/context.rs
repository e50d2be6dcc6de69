//! What a plugin is told when it starts, and what it may tell.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;

use serde::de::DeserializeOwned;

use crate::{
    InitError, Reports,
    reload::{Reload, Reloader, reloader},
};

/// What a plugin declares of itself while it starts; shown by introspection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Platforms it serves, as `os/arch`.
    pub platforms: Vec<String>,
    /// Facts for users, e.g. `root`.
    pub exports: BTreeMap<String, String>,
    /// What it can do beyond its contract.
    pub capabilities: Vec<String>,
}

pub(crate) type Closer = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// What a plugin is told when it starts.
#[derive(Clone)]
pub struct InitContext {
    /// Its URI.
    pub uri: String,
    /// Its own directory for persistent state; not made yet.
    pub root: PathBuf,
    /// Its own directory for state that a reboot may lose; not made yet.
    pub state: PathBuf,
    /// What became of the plugins of its graph; those that start later follow.
    pub reports: Reports,
    properties: Arc<BTreeMap<String, String>>,
    pub(crate) told: Arc<Mutex<Told>>,
}

#[derive(Default)]
pub(crate) struct Told {
    pub(crate) declared: Declared,
    pub(crate) closers: Vec<Closer>,
    pub(crate) reloader: Option<Reloader>,
}

impl InitContext {
    /// A context for a plugin that is started outside a graph, as tests do.
    pub fn new(uri: impl Into<String>, root: PathBuf, state: PathBuf, properties: BTreeMap<String, String>) -> Self {
        Self::in_graph(uri.into(), root, state, Arc::new(properties), Reports::default())
    }

    pub(crate) fn in_graph(
        uri: String,
        root: PathBuf,
        state: PathBuf,
        properties: Arc<BTreeMap<String, String>>,
        reports: Reports,
    ) -> Self {
        Self { uri, root, state, reports, properties, told: Arc::default() }
    }

    /// A fact that the daemon gives to every plugin.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// Declares a fact for users.
    pub fn export(&self, name: impl Into<String>, value: impl Into<String>) {
        self.tell(|told| told.declared.exports.insert(name.into(), value.into()));
    }

    /// Declares something that the plugin can do.
    pub fn capability(&self, name: impl Into<String>) {
        self.tell(|told| told.declared.capabilities.push(name.into()));
    }

    /// Declares a platform that the plugin serves.
    pub fn platform(&self, platform: impl Into<String>) {
        self.tell(|told| told.declared.platforms.push(platform.into()));
    }

    /// Has `close` run when the graph stops, before anything that this plugin needed is closed.
    pub fn on_close<F: Future<Output = ()> + Send + 'static>(&self, close: impl FnOnce() -> F + Send + 'static) {
        self.tell(|told| told.closers.push(Box::new(move || Box::pin(close()))));
    }

    /// Has `look` see the plugin's table when the configuration is read anew and says something else. What it answers is
    /// done when no plugin refuses. Without this a changed table waits for the next start.
    pub fn on_reload<C: DeserializeOwned>(
        &self,
        look: impl Fn(C) -> Result<Reload, InitError> + Send + Sync + 'static,
    ) {
        let reloader = reloader(self.uri.clone(), look);
        self.tell(|told| told.reloader = Some(reloader));
    }

    fn tell<T>(&self, change: impl FnOnce(&mut Told) -> T) {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
