//! The snapshotter as a plugin: `io.containerd.snapshotter.v1.overlayfs`.

use std::path::PathBuf;

use kevel_contract::{
    call::Target,
    snapshot::{CAPABILITY_REBASE, Snapshotter, Snapshotters},
};
use kevel_model::Platform;
use kevel_plugin::{InitContext, InitError};
use serde::{Deserialize, Serialize};

use super::{Options, in_user_namespace, probe, supported};
use crate::Error;

/// The plugin's table; keys and defaults are containerd's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where snapshots are; the plugin's own directory when empty.
    pub root_path: PathBuf,
    /// Show each snapshot's directory of changes as a label.
    pub upperdir_label: bool,
    /// Delete files before `Remove` returns, not in the background.
    pub sync_remove: bool,
    /// Let clients change owners file by file where ids can't be mapped by mounts.
    pub slow_chown: bool,
    /// Further options of overlay mounts, e.g. `volatile`.
    pub mount_options: Vec<String>,
}

/// Registers the snapshotter.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = Snapshotters;
    const ID: &'static str = "overlayfs";
    type Config = Config;
    type Deps = ();

    async fn init(cx: InitContext, config: Config, (): ()) -> Result<Snapshotter, InitError> {
        cx.platform(Platform::host().to_string());
        let root = if config.root_path.as_os_str().is_empty() { cx.root.clone() } else { config.root_path };
        cx.export("root", root.to_string_lossy());
        let probed = root.clone();
        match tokio::task::spawn_blocking(move || supported(&probed)).await.map_err(InitError::failed)? {
            Ok(()) => {}
            Err(Error::Unsupported(why)) => return Err(InitError::Skip(why)),
            Err(error) => return Err(InitError::failed(error)),
        }
        let options = Options {
            upperdir_label: config.upperdir_label,
            mount_options: config.mount_options,
            remap_ids: probe::maps_ids(),
            // Whiteouts of layers unpacked on their own are devices, which a user namespace can't make.
            rebase: !in_user_namespace(),
        };
        for (has, capability) in [
            (options.remap_ids, "remap-ids"),
            (!config.slow_chown, "only-remap-ids"),
            (options.rebase, CAPABILITY_REBASE),
        ] {
            if has {
                cx.capability(capability);
            }
        }
        let snapshots = super::open(&root, options, config.sync_remove).await.map_err(InitError::failed)?;
        let closing = snapshots.clone();
        cx.on_close(move || async move {
            if let Err(error) = closing.close().await {
                tracing::warn!(error = %error.chain(), "committed layers are not synced");
            }
        });
        Ok(Snapshotter::new(Target::local("snapshotter overlayfs"), snapshots))
    }
}
