//! The daemon's configuration: containerd's file format, versions 2 to 4 (and 1 by name), with imports.
//!
//! [`load`] finds, migrates and merges files; [`Config`] is the result; [`migrate`] rewrites an older document into the
//! current version. What a plugin's own table means is the plugin's business.

mod defaults;
mod load;
mod merge;
mod migrate;

use std::{collections::BTreeMap, path::PathBuf};

use kevel_client::proxy::ProxyPlugin;
use serde::{Deserialize, Serialize};

pub(crate) use defaults::{DEFAULT_CONFIG_PATH, document as default_document};
pub(crate) use load::{Loaded, load};
pub(crate) use migrate::{VERSION, migrate};

/// The top level of a configuration of the current version.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Version of the format.
    pub version: u32,
    /// Directory of persistent state.
    pub root: PathBuf,
    /// Directory of state that a reboot may lose.
    pub state: PathBuf,
    /// Directory of temporary files; not acted on, because what is temporary is below the state directory.
    pub temp: String,
    /// URIs of plugins that must not start.
    pub disabled_plugins: Vec<String>,
    /// URIs of plugins without which the daemon must not start.
    pub required_plugins: Vec<String>,
    /// The daemon's OOM score adjustment; clamped to what the kernel permits.
    pub oom_score: i32,
    /// Further files to read: paths relative to this one, with `*` in file names.
    pub imports: Vec<String>,
    /// Logging.
    pub debug: Debug,
    /// Plugin tables by URI.
    pub plugins: BTreeMap<String, toml::Table>,
    /// Plugins in other processes, by name.
    pub proxy_plugins: BTreeMap<String, ProxyPlugin>,
    /// Time limits by name, as Go durations.
    pub timeouts: BTreeMap<String, String>,
    /// Programs that decode layers, by name.
    pub stream_processors: toml::Table,
    /// The cgroup that the daemon moves itself into.
    pub cgroup: Cgroup,
}

/// Logging.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Debug {
    /// `trace`, `debug`, `info`, `warn`, `error`; info when empty.
    pub level: String,
    /// `text` or `json`; text when empty.
    pub format: String,
    /// Add trace ids to log lines.
    pub log_trace_id: bool,
}

/// The daemon's own cgroup.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cgroup {
    /// Path below the hierarchies; none when empty.
    pub path: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: VERSION,
            root: "/var/lib/kevel".into(),
            state: "/run/kevel".into(),
            temp: String::new(),
            disabled_plugins: Vec::new(),
            required_plugins: Vec::new(),
            oom_score: 0,
            imports: Vec::new(),
            debug: Debug::default(),
            plugins: BTreeMap::new(),
            proxy_plugins: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            stream_processors: toml::Table::new(),
            cgroup: Cgroup::default(),
        }
    }
}
