//! The snapshotter as a plugin: `io.containerd.snapshotter.v1.native`.

use std::path::PathBuf;

use kevel_contract::{
    call::Target,
    snapshot::{Snapshotter, Snapshotters},
};
use kevel_model::Platform;
use kevel_plugin::{InitContext, InitError};
use serde::{Deserialize, Serialize};

/// The plugin's table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where snapshots are; the plugin's own directory when empty.
    pub root_path: PathBuf,
}

/// Registers the snapshotter.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = Snapshotters;
    const ID: &'static str = "native";
    type Config = Config;
    type Deps = ();

    async fn init(cx: InitContext, config: Config, (): ()) -> Result<Snapshotter, InitError> {
        cx.platform(Platform::host().to_string());
        let root = if config.root_path.as_os_str().is_empty() { cx.root.clone() } else { config.root_path };
        cx.export("root", root.to_string_lossy());
        let snapshots = super::open(&root, false).await.map_err(InitError::failed)?;
        let closing = snapshots.clone();
        cx.on_close(move || async move {
            if let Err(error) = closing.close().await {
                tracing::warn!(error = %error.chain(), "committed layers are not synced");
            }
        });
        Ok(Snapshotter::new(Target::local("snapshotter native"), snapshots))
    }
}
