//! A configuration that changes while its plugins run: what each of them would do with it, and that done for all.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use crate::{Checked, Graph, GraphError, InitError, config, registry::Ready};

/// What a plugin would do with another table: made by looking at it, done only when every plugin had a look.
pub struct Reload {
    apply: Box<dyn FnOnce() + Send>,
    restart: Vec<String>,
}

impl Reload {
    /// Takes the table on by `apply`, which must neither fail nor block.
    pub fn new(apply: impl FnOnce() + Send + 'static) -> Self {
        Self { apply: Box::new(apply), restart: Vec::new() }
    }

    /// Names keys that are changed and that only a new start takes on.
    #[must_use]
    pub fn leaving(mut self, keys: impl IntoIterator<Item = String>) -> Self {
        self.restart.extend(keys);
        self
    }
}

pub(crate) type Reloader = Box<dyn Fn(toml::Table) -> Result<Reload, InitError> + Send + Sync>;

pub(crate) fn reloader<C: DeserializeOwned>(
    uri: String,
    look: impl Fn(C) -> Result<Reload, InitError> + Send + Sync + 'static,
) -> Reloader {
    Box::new(move |given| {
        let (config, _) =
            config::read::<C>(given).map_err(|message| InitError::Config { uri: uri.clone(), message })?;
        look(config)
    })
}

/// A plugin's table, and who takes on another one.
pub(crate) struct Running {
    pub(crate) uri: String,
    pub(crate) table: toml::Table,
    pub(crate) reloader: Option<Reloader>,
}

/// What a reload did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Plugins that took their new table on.
    pub changed: Vec<String>,
    /// Plugins, or keys of them as `URI: key`, that are changed and that only a new start takes on.
    pub restart: Vec<String>,
}

impl Graph {
    /// Has the plugins take on what changed in their tables. Either all of them do, or an error says which plugin
    /// refuses and nothing is changed.
    pub fn reload(&mut self, checked: &Checked) -> Result<Reloaded, GraphError> {
        let mut done = Reloaded::default();
        let mut todo = Vec::new();
        let wanted: BTreeSet<String> = checked.plugins.iter().map(Ready::uri).collect();
        let running: BTreeSet<String> = self.running.iter().map(|running| running.uri.clone()).collect();
        done.restart.extend(wanted.symmetric_difference(&running).cloned());
        for plugin in &checked.plugins {
            let uri = plugin.uri();
            let Some(index) = self.running.iter().position(|running| running.uri == uri) else { continue };
            let running = &self.running[index];
            match &running.reloader {
                _ if running.table == plugin.effective => {}
                None => done.restart.push(uri),
                Some(look) => {
                    let given = checked.settings.plugins.get(&uri).cloned().unwrap_or_default();
                    let refused = |error: InitError| match error {
                        InitError::Config { uri, message } => GraphError::Config { uri, message },
                        other => GraphError::Config { uri: uri.clone(), message: other.chain() },
                    };
                    todo.push((index, plugin.effective.clone(), look(given).map_err(refused)?));
                }
            }
        }
        for (index, table, reload) in todo {
            (reload.apply)();
            let running = &mut self.running[index];
            done.changed.push(running.uri.clone());
            if reload.restart.is_empty() {
                running.table = table;
            } // else the next reload says it again
            done.restart.extend(reload.restart.into_iter().map(|key| format!("{}: {key}", running.uri)));
        }
        Ok(done)
    }
}
