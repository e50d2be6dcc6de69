//! What the configuration says to the graph as a whole, and how a plugin's own table is read.

use std::{collections::BTreeMap, path::PathBuf};

use serde::de::DeserializeOwned;

/// What a graph is started with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Directory of persistent state; a plugin's own is `<root>/<uri>`.
    pub root: PathBuf,
    /// Directory of state that a reboot may lose; a plugin's own is `<state>/<uri>`.
    pub state: PathBuf,
    /// Facts for every plugin, by name, e.g. `io.containerd.plugin.grpc.address`.
    pub properties: BTreeMap<String, String>,
    /// Plugin tables by URI.
    pub plugins: BTreeMap<String, toml::Table>,
    /// URIs of plugins that must not start.
    pub disabled: Vec<String>,
    /// URIs of plugins without which nothing may start.
    pub required: Vec<String>,
}

/// Reads a plugin's table into its config; answers the keys that nothing read. The error names the key.
pub(crate) fn read<C: DeserializeOwned>(table: toml::Table) -> Result<(C, Vec<String>), String> {
    let mut unknown = Vec::new();
    let value = toml::Value::Table(table);
    let config = serde_ignored::deserialize(value, |path| unknown.push(path.to_string()))
        .map_err(|error: toml::de::Error| error.to_string().trim().to_owned())?;
    Ok((config, unknown))
}
