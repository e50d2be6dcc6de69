//! The configurations in use and the report of how they were read.

use crate::Config;
use crate::conf::{Loaded, NetworkList, PluginConf};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// The configurations in use.
#[derive(Default)]
pub(super) struct State {
    pub(super) networks: Vec<Arc<NetworkList>>,
    pub(super) report: LoadReport,
}

/// What the last reading of the configuration directory gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The networks in use and where they come from.
    pub networks: Vec<(String, Origin)>,
    /// What is wrong with files that are not in use, one line each.
    pub errors: Vec<String>,
}

/// Where a network comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file in the configuration directory.
    File(PathBuf),
    /// [`Config::fallback`].
    Fallback,
}

impl State {
    pub(super) fn new(loaded: Loaded, config: &Config) -> Self {
        let chain = |e: &dyn std::error::Error| crate::error::Chain(e).to_string();
        let mut errors: Vec<String> = loaded.errors.iter().map(|e| chain(e)).collect();
        let mut networks: Vec<Arc<NetworkList>> = loaded.networks.into_iter().map(Arc::new).collect();
        let mut origins: Vec<Origin> = loaded.files.into_iter().map(Origin::File).collect();
        if let (0, Some(fallback)) = (loaded.candidates, &config.fallback) {
            match fallback.network() {
                Ok(list) => {
                    networks.push(Arc::new(list));
                    origins.push(Origin::Fallback);
                }
                Err(e) => errors.push(format!("fallback network: {}", chain(&e))),
            }
        }
        let names = networks.iter().map(|list| list.name.clone());
        let report = LoadReport { networks: names.zip(origins).collect(), errors };
        Self { networks, report }
    }

    /// Field names are those of go-cni's structs, which have no JSON names of their own.
    pub(super) fn describe(&self, config: &Config) -> Value {
        let network = |(i, list): (usize, &Arc<NetworkList>)| {
            let plugin = |plugin: &PluginConf| {
                let raw = plugin.raw();
                let pick = |key: &str| raw.get(key).cloned().unwrap_or_else(|| json!({}));
                let ipam = json!({ "type": pick("ipam").get("type") });
                let network = json!({ "type": plugin.kind, "ipam": ipam, "dns": pick("dns") });
                json!({ "Network": network, "Source": Value::Object(raw.clone()).to_string() })
            };
            let plugins: Vec<Value> = list.plugins.iter().map(plugin).collect();
            let source = String::from_utf8_lossy(&list.to_bytes()).into_owned();
            let version = list.version.to_string();
            let list = json!({ "Name": list.name, "CNIVersion": version, "Plugins": plugins, "Source": source });
            json!({ "Config": list, "IFName": super::ifname(i) })
        };
        json!({
            "PluginDirs": config.bin_dirs,
            "PluginConfDir": config.conf_dir,
            "PluginMaxConfNum": config.max_conf_num,
            "Prefix": super::PREFIX,
            "Networks": self.networks.iter().enumerate().map(network).collect::<Vec<_>>(),
        })
    }
}
