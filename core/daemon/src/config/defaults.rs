//! The configuration that a daemon without a file runs with.

use kevel_plugin::Registry;

use super::Config;

/// Where the daemon looks for its configuration when it is not told.
pub(crate) const DEFAULT_CONFIG_PATH: &str = "/etc/kevel/config.toml";

/// The whole default configuration as a document: the top level and every plugin's own table.
pub(crate) fn document(config: &Config, registry: &Registry) -> Result<toml::Table, toml::ser::Error> {
    let mut document = toml::Table::try_from(config)?;
    // Tables of plugins that are not here are shown as they are.
    let given = config.plugins.iter().map(|(uri, table)| (uri.clone(), toml::Value::Table(table.clone())));
    let mut plugins: toml::Table = given.collect();
    for registration in registry.registrations() {
        let uri = registration.uri();
        let mut table = registration.default_config();
        if let Some(given) = config.plugins.get(&uri) {
            super::merge::tables(&mut table, given.clone());
        }
        if !table.is_empty() {
            plugins.insert(uri, toml::Value::Table(table));
        }
    }
    document.insert("plugins".to_owned(), toml::Value::Table(plugins));
    Ok(document)
}
