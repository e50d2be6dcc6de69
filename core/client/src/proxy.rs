//! Proxy plugins: snapshotters, content stores, differs and sandbox controllers of other processes, as the table
//! `[proxy_plugins]` of the configuration names them.

use std::{collections::BTreeMap, time::Duration};

use kevel_contract::{content::Contents, diff::Differs, sandbox::SandboxControllers, snapshot::Snapshotters};
use kevel_model::{Error, Platform, Result};
use kevel_plugin::{InitContext, InitError, Kind, Registration};
use serde::{Deserialize, Serialize};

use crate::{Remote, content, controller, differ, snapshotter};

/// One `[proxy_plugins.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyPlugin {
    /// `snapshot`, `content`, `diff` or `sandbox`, or the whole type, such as `io.containerd.snapshotter.v1`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Path of the plugin's socket.
    pub address: String,
    /// The platform it serves, as `os/arch`; the host's when empty.
    pub platform: String,
    /// Facts for users.
    pub exports: BTreeMap<String, String>,
    /// What it can do beyond its contract, such as `rebase` and `remap-ids`.
    pub capabilities: Vec<String>,
    /// The longest a call may take, in seconds; 120 when it is 0. Not a key of containerd's, which waits forever.
    pub timeout_secs: u64,
}

/// The registrations of every proxy plugin. Nothing is connected until somebody calls one.
///
/// # Errors
/// "invalid argument" that names the key, for a type that can't be remote, an address that is none, or a bad platform.
pub fn registrations(plugins: &BTreeMap<String, ProxyPlugin>) -> Result<Vec<Registration>> {
    plugins.iter().map(|(name, plugin)| registration(name, plugin)).collect()
}

fn registration(name: &str, plugin: &ProxyPlugin) -> Result<Registration> {
    let wrong = |key: &str, why: String| Error::invalid_argument(format!("proxy_plugins.{name}.{key}: {why}"));
    if plugin.address.is_empty() {
        return Err(wrong("address", "is required".to_owned()));
    }
    let path = plugin.address.strip_prefix("unix://").unwrap_or(&plugin.address);
    if !path.starts_with('/') {
        return Err(wrong("address", format!("{:?} is not an absolute path of a socket", plugin.address)));
    }
    if !plugin.platform.is_empty() {
        plugin.platform.parse::<Platform>().map_err(|error| wrong("platform", error.to_string()))?;
    }
    let own = name.to_owned();
    match plugin.kind.as_str() {
        "snapshot" | Snapshotters::TYPE => {
            Ok(remote::<Snapshotters>(name, plugin, "snapshotter", move |remote| snapshotter(remote, own)))
        }
        "content" | Contents::TYPE => Ok(remote::<Contents>(name, plugin, "content store", content)),
        "diff" | Differs::TYPE => Ok(remote::<Differs>(name, plugin, "differ", differ)),
        "sandbox" | SandboxControllers::TYPE => {
            let make = move |remote: &Remote| controller(remote, own);
            Ok(remote::<SandboxControllers>(name, plugin, "sandbox controller", make))
        }
        "" => Err(wrong("type", "is required".to_owned())),
        other => {
            Err(wrong("type", format!("{other:?} is not snapshot, content, diff or sandbox, nor one of their types")))
        }
    }
}

fn remote<K: Kind>(
    name: &str,
    plugin: &ProxyPlugin,
    what: &'static str,
    make: impl FnOnce(&Remote) -> K::Handle + Send + 'static,
) -> Registration {
    let (own, plugin) = (name.to_owned(), plugin.clone());
    Registration::remote::<K>(name, move |cx| {
        let remote = Remote::new(format!("{what} {own}"), &plugin.address).map_err(InitError::failed)?.proxy();
        let remote = match plugin.timeout_secs {
            0 => remote,
            seconds => remote.deadline(Duration::from_secs(seconds)),
        };
        declare(cx, plugin);
        Ok(make(&remote))
    })
}

fn declare(cx: &InitContext, plugin: ProxyPlugin) {
    let platform = if plugin.platform.is_empty() { Platform::host().to_string() } else { plugin.platform };
    cx.platform(platform);
    for (name, value) in plugin.exports {
        cx.export(name, value);
    }
    cx.export("address", plugin.address);
    for capability in plugin.capabilities {
        cx.capability(capability);
    }
}

#[cfg(test)]
mod tests {
    use kevel_plugin::{PluginStatus, Registry, Settings};

    use super::*;

    fn table(kind: &str, address: &str, platform: &str) -> BTreeMap<String, ProxyPlugin> {
        let (kind, address, platform) = (kind.to_owned(), address.to_owned(), platform.to_owned());
        BTreeMap::from([("mine".to_owned(), ProxyPlugin { kind, address, platform, ..ProxyPlugin::default() })])
    }

    #[test]
    fn wrong_tables_name_the_key() {
        let check = |kind: &str, address: &str, platform: &str, want: &str| {
            let error = registrations(&table(kind, address, platform)).err().unwrap();
            assert_eq!((error.code(), error.chain()), (kevel_model::Code::InvalidArgument, want.to_owned()));
        };
        check("snapshot", "", "", "proxy_plugins.mine.address: is required");
        check("snapshot", "x.sock", "", "proxy_plugins.mine.address: \"x.sock\" is not an absolute path of a socket");
        check("", "/x", "", "proxy_plugins.mine.type: is required");
        check(
            "snaphsot",
            "/x",
            "",
            "proxy_plugins.mine.type: \"snaphsot\" is not snapshot, content, diff or sandbox, nor one of their types",
        );
        check(
            "diff",
            "/x",
            "a/b/c/d",
            "proxy_plugins.mine.platform: platform \"a/b/c/d\" is not os[/architecture[/variant]]",
        );
    }

    #[tokio::test]
    async fn every_type_starts_without_anything_listening() {
        let types = [
            ("snapshot", "io.containerd.snapshotter.v1.mine"),
            ("content", "io.containerd.content.v1.mine"),
            ("diff", "io.containerd.differ.v1.mine"),
            ("sandbox", "io.containerd.sandbox.controller.v1.mine"),
            ("io.containerd.snapshotter.v1", "io.containerd.snapshotter.v1.mine"),
        ];
        for (kind, uri) in types {
            let mut registry = Registry::default();
            let mut plugins = table(kind, "/run/kevel-test/none.sock", "linux/arm64");
            plugins.get_mut("mine").unwrap().capabilities.push("rebase".into());
            for registration in registrations(&plugins).unwrap() {
                registry.push(registration);
            }
            let graph = registry.start(Settings::default()).await.unwrap();
            let report = &graph.reports()[0];
            assert_eq!((report.uri().as_str(), &report.status), (uri, &PluginStatus::Ok));
            assert_eq!(report.declared.exports["address"], "/run/kevel-test/none.sock");
            assert_eq!(
                (&report.declared.capabilities[..], &report.declared.platforms[..]),
                (&["rebase".into()][..], &["linux/arm64".into()][..])
            );
        }
    }
}
