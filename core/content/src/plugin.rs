//! The store as a plugin: `io.containerd.content.v1.content`.

use std::path::PathBuf;

use kevel_contract::{
    call::Target,
    content::{ContentStore, Contents},
};
use kevel_plugin::{InitContext, InitError};
use serde::{Deserialize, Serialize};

use crate::LocalStore;

/// The plugin's table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where blobs and ingests are; the plugin's own directory when empty.
    pub root_path: PathBuf,
}

/// Registers the store.
pub struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = Contents;
    const ID: &'static str = "content";
    type Config = Config;
    type Deps = ();

    async fn init(cx: InitContext, config: Config, (): ()) -> Result<ContentStore, InitError> {
        let root = if config.root_path.as_os_str().is_empty() { cx.root.clone() } else { config.root_path };
        cx.export("root", root.to_string_lossy());
        let store = LocalStore::open(&root).await.map_err(InitError::failed)?;
        Ok(ContentStore::new(Target::local("content store"), store))
    }
}
