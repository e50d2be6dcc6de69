//! What an operator can set: containerd's `[cni]` table, and deadlines.

use crate::Verb;
use crate::conf::Fallback;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Configuration of a [`crate::Network`]. Names and defaults are those of containerd's `[cni]` table, except that
/// the loopback interface is brought up without a plugin by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where plugins are, in order of search.
    pub bin_dirs: Vec<PathBuf>,
    /// Where network configurations are.
    pub conf_dir: PathBuf,
    /// How many networks a pod joins, the first by file name; 0 means all.
    pub max_conf_num: usize,
    /// Join networks one after the other, for plugins that need it, and not at once.
    pub setup_serially: bool,
    /// Which address of several is the pod's own.
    pub ip_pref: IpPreference,
    /// Bring `lo` up directly instead of through the loopback plugin.
    pub use_internal_loopback: bool,
    /// Where records of attachments are, in `results`.
    pub cache_dir: PathBuf,
    /// The network to use while `conf_dir` holds no configuration; none means that pods must wait for one.
    pub fallback: Option<Fallback>,
    /// Deadlines of plugin calls.
    #[serde(skip)]
    pub timeouts: Timeouts,
}

/// Which of a pod's addresses comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpPreference {
    /// The first IPv4 address; without any, the first.
    #[default]
    #[serde(alias = "")]
    Ipv4,
    /// The first IPv6 address; without any, the first.
    Ipv6,
    /// The first one that the plugin names.
    Cni,
}

/// How long one plugin may take, for each operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// ADD: plugins may wait for an agent, an address or a cloud.
    pub add: Duration,
    /// DEL.
    pub del: Duration,
    /// CHECK.
    pub check: Duration,
    /// STATUS and VERSION: the kubelet waits for the answer.
    pub status: Duration,
    /// GC: a plugin goes through all it has.
    pub gc: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bin_dirs: vec![PathBuf::from("/opt/cni/bin")],
            conf_dir: PathBuf::from("/etc/cni/net.d"),
            max_conf_num: 1,
            setup_serially: false,
            ip_pref: IpPreference::Ipv4,
            use_internal_loopback: true,
            cache_dir: PathBuf::from("/var/lib/cni"),
            fallback: None,
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { add: seconds(90), del: seconds(60), check: seconds(30), status: seconds(10), gc: seconds(120) }
    }
}

impl Timeouts {
    pub(crate) fn of(&self, verb: Verb) -> Duration {
        match verb {
            Verb::Add => self.add,
            Verb::Del => self.del,
            Verb::Check => self.check,
            Verb::Status | Verb::Version => self.status,
            Verb::Gc => self.gc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_those_of_containerd() {
        let table = json!({
            "bin_dirs": ["/a", "/b"], "conf_dir": "/c", "max_conf_num": 0, "setup_serially": true,
            "ip_pref": "ipv6", "use_internal_loopback": false, "conf_template": "/ignored/here",
        });
        let config: Config = serde_json::from_value(table).unwrap();
        assert_eq!(config.bin_dirs.len(), 2);
        assert_eq!((config.max_conf_num, config.ip_pref), (0, IpPreference::Ipv6));
        assert_eq!(serde_json::from_value::<Config>(json!({})).unwrap(), Config::default());
        let empty: Config = serde_json::from_value(json!({"ip_pref": ""})).unwrap();
        assert_eq!(empty.ip_pref, IpPreference::Ipv4);
        assert!(serde_json::from_value::<Config>(json!({"ip_pref": "ipv5"})).is_err());
    }
}
