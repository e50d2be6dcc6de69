//! Network configurations: what a `.conflist` or `.conf` file says, and what one plugin of it is asked.

mod fallback;
mod load;
mod watch;

pub use fallback::Fallback;
pub use load::{FileError, Loaded, load};
pub(crate) use watch::Watch;

use crate::SpecVersion;
use crate::field::{FieldError, Node, Object};
use crate::name::{check_network, check_plugin};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Keys that only the runtime sets (spec section 1, reserved keys) begin with this.
const RESERVED_PREFIX: &str = "cni.dev/";

/// A network: a chain of plugins under one name.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkList {
    /// The network's name.
    pub name: String,
    /// The highest specification version that both the configuration and this runtime support.
    pub version: SpecVersion,
    /// CHECK must not be called.
    pub disable_check: bool,
    /// GC must not be called.
    pub disable_gc: bool,
    /// Plugins from the folder named like the network must not be added.
    pub load_only_inlined: bool,
    /// The chain, in the order of ADD.
    pub plugins: Vec<PluginConf>,
    raw: Map<String, Value>,
}

/// One plugin of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConf {
    /// Which plugin.
    pub kind: String,
    /// Which of the runtime's capability arguments it wants.
    pub capabilities: BTreeSet<String>,
    raw: Map<String, Value>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("unreadable")]
    Read(#[source] io::Error),
    /// The file is longer than any configuration.
    #[error("longer than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// Not JSON.
    #[error("not JSON")]
    Syntax(#[source] serde_json::Error),
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotObject,
    /// A field is not right.
    #[error("invalid field")]
    Field(#[from] FieldError),
    /// There is nothing to run, neither in the file nor in the network's folder.
    #[error("no plugins, neither in the file nor in a folder {folder:?} beside it")]
    NoPlugins {
        /// The folder's name.
        folder: String,
    },
    /// Another file, read earlier, has the same network name.
    #[error("network name {name:?} is taken by {taken_by}")]
    Duplicate {
        /// The name.
        name: String,
        /// The file that has it.
        taken_by: String,
    },
}

impl NetworkList {
    /// Parses a configuration list (`.conflist`). The list of plugins may be empty: the folder of the network may
    /// have some.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::from_map(parse_object(bytes)?)
    }

    /// Parses a single plugin's configuration (`.conf`, `.json`) into a list of one.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field.
    pub fn parse_single(bytes: &[u8]) -> Result<Self, ConfigError> {
        let raw = parse_object(bytes)?;
        if raw.contains_key("plugins") && !raw.contains_key("type") {
            return Err(FieldError::new("type", "missing: a file with plugins must be called .conflist").into());
        }
        let mut list = Map::new();
        for key in ["name", "cniVersion"] {
            if let Some(value) = raw.get(key) {
                list.insert(key.to_owned(), value.clone());
            }
        }
        PluginConf::from_map(raw.clone(), "")?;
        list.insert("plugins".to_owned(), Value::Array(vec![Value::Object(raw)]));
        Self::from_map(list)
    }

    /// Parses the configuration in an attachment's record, which may be of either form and must have plugins.
    pub(crate) fn parse_recorded(bytes: &[u8]) -> Result<Self, ConfigError> {
        let raw = parse_object(bytes)?;
        let single = raw.contains_key("type") && !raw.contains_key("plugins");
        let list = if single { Self::parse_single(bytes)? } else { Self::from_map(raw)? };
        if list.plugins.is_empty() { Err(ConfigError::NoPlugins { folder: list.name }) } else { Ok(list) }
    }

    fn from_map(raw: Map<String, Value>) -> Result<Self, ConfigError> {
        let root = Object::root(&raw);
        let name = root.require("name")?.string()?;
        check_network("name", &name)?;
        let version = select_version(&root)?;
        let load_only_inlined = root.flag("loadOnlyInlinedPlugins")?;
        let plugins = match root.get("plugins") {
            Some(node) => inline_plugins(&node)?,
            None if load_only_inlined => {
                let reason = "true, but there are no plugins in the file";
                return Err(FieldError::new("loadOnlyInlinedPlugins", reason).into());
            }
            None => Vec::new(),
        };
        let (disable_check, disable_gc) = (root.flag("disableCheck")?, root.flag("disableGC")?);
        Ok(Self { name, version, disable_check, disable_gc, load_only_inlined, plugins, raw })
    }

    /// The configuration as JSON that [`Self::parse`] reads back to an equal list, plugins from the folder included.
    pub fn to_bytes(&self) -> Vec<u8> {
        Value::Object(self.raw.clone()).to_string().into_bytes()
    }

    /// Adds plugins from the network's folder. The raw form then holds all of them and says so, because DEL must run
    /// the chain that ADD ran whatever happens to the folder.
    pub(crate) fn append(&mut self, more: Vec<PluginConf>) {
        if more.is_empty() {
            return;
        }
        self.plugins.extend(more);
        self.load_only_inlined = true;
        let all = self.plugins.iter().map(|plugin| Value::Object(plugin.raw.clone())).collect();
        self.raw.insert("plugins".to_owned(), Value::Array(all));
        self.raw.insert("loadOnlyInlinedPlugins".to_owned(), true.into());
    }

    /// What `plugin` gets on standard input (spec section 3, deriving request configuration).
    ///
    /// The text says that `capabilities` must not be set; every runtime leaves it in, and plugins that delegate read
    /// it, so it stays.
    pub(crate) fn request(&self, plugin: &PluginConf, extra: RequestFields<'_>) -> Vec<u8> {
        let mut map = plugin.raw.clone();
        map.retain(|key, _| !key.starts_with(RESERVED_PREFIX));
        map.insert("cniVersion".to_owned(), self.version.to_string().into());
        map.insert("name".to_owned(), self.name.clone().into());
        match extra.prev_result {
            Some(result) => map.insert("prevResult".to_owned(), Value::Object(result.clone())),
            None => map.shift_remove("prevResult"),
        };
        let wanted = |(name, _): &(&String, &Value)| plugin.capabilities.contains(*name);
        let runtime: Map<_, _> =
            extra.capability_args.iter().filter(wanted).map(|(k, v)| (k.clone(), v.clone())).collect();
        if !runtime.is_empty() {
            map.insert("runtimeConfig".to_owned(), Value::Object(runtime));
        }
        if let Some(valid) = extra.valid_attachments {
            // The second name is what early 1.1 plugins read.
            map.insert("cni.dev/valid-attachments".to_owned(), valid.clone());
            map.insert("cni.dev/attachments".to_owned(), valid.clone());
        }
        Value::Object(map).to_string().into_bytes()
    }
}

/// What an operation adds to a plugin's configuration.
#[derive(Clone, Copy)]
pub(crate) struct RequestFields<'a> {
    pub(crate) prev_result: Option<&'a Map<String, Value>>,
    pub(crate) capability_args: &'a BTreeMap<String, Value>,
    pub(crate) valid_attachments: Option<&'a Value>,
}

impl PluginConf {
    /// Parses one plugin's configuration object.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        Ok(Self::from_map(parse_object(bytes)?, "")?)
    }

    /// The configuration object, unknown fields included.
    pub fn raw(&self) -> &Map<String, Value> {
        &self.raw
    }

    fn from_map(raw: Map<String, Value>, path: &str) -> Result<Self, FieldError> {
        let locate =
            |e: FieldError| if path.is_empty() { e } else { FieldError::new(format!("{path}.{}", e.field), e.reason) };
        let root = Object::root(&raw);
        let kind = root.require("type").and_then(|node| node.string()).map_err(locate)?;
        check_plugin("type", &kind).map_err(locate)?;
        let mut capabilities = BTreeSet::new();
        if let Some(node) = root.get("capabilities") {
            let object = node.object().map_err(locate)?;
            for name in object.map().keys() {
                if object.flag(name).map_err(locate)? {
                    capabilities.insert(name.clone());
                }
            }
        }
        if let Some(node) = root.get("ipam") {
            let ipam = node.object().map_err(locate)?;
            if let Some(kind) = ipam.get("type") {
                check_plugin("ipam.type", &kind.string().map_err(locate)?).map_err(locate)?;
            }
        }
        Ok(Self { kind, capabilities, raw })
    }
}

fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, ConfigError> {
    match serde_json::from_slice(bytes).map_err(ConfigError::Syntax)? {
        Value::Object(map) => Ok(map),
        _ => Err(ConfigError::NotObject),
    }
}

fn inline_plugins(list: &Node<'_>) -> Result<Vec<PluginConf>, FieldError> {
    let items = list.list()?;
    if items.is_empty() {
        return Err(list.error("empty"));
    }
    let mut plugins = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        plugins.push(PluginConf::from_map(item.object()?.map().clone(), &format!("plugins[{i}]"))?);
    }
    Ok(plugins)
}

/// Spec section 1, version considerations: the highest supported one of `cniVersion` and `cniVersions`. Newer ones in
/// the list are passed over, a newer or unknown single one is an error.
fn select_version(root: &Object<'_>) -> Result<SpecVersion, FieldError> {
    let mut best = None;
    for node in root.list("cniVersions")? {
        let text = node.string()?;
        let version = SpecVersion::parse(&text).ok_or_else(|| node.error(format!("{text:?} is not a version")))?;
        if version.is_supported() {
            best = best.max(Some(version));
        }
    }
    let text = root.string("cniVersion")?;
    if text.is_empty() {
        return Ok(best.unwrap_or(SpecVersion::V0_1_0));
    }
    let bad = |reason: &str| FieldError::new("cniVersion", format!("{text:?} {reason}"));
    let single = SpecVersion::parse(&text).ok_or_else(|| bad("is not a version"))?;
    let single = Some(single).filter(|v| v.is_supported());
    best.max(single).ok_or_else(|| bad("is not a supported version"))
}

#[cfg(test)]
#[path = "conf/tests.rs"]
mod tests;
