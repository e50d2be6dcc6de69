//! `[plugins."io.containerd.transfer.v1.local"]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The plugin's table. Keys that containerd has mean what they mean there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Blobs downloaded at the same time, on the whole node; 0 for no limit.
    pub max_concurrent_downloads: usize,
    /// Layers unpacked at the same time, on the whole node; 0 for one per processor.
    pub max_concurrent_unpacks: usize,
    /// Bytes that may be between sockets and appliers at the same time, on the whole node.
    pub max_bytes_in_flight: usize,
    /// Directories with `hosts.toml` files, joined by `:`.
    pub config_path: String,
    /// The snapshotter for those who name none.
    pub snapshotter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent_downloads: 3,
            max_concurrent_unpacks: 0,
            max_bytes_in_flight: 64 << 20,
            config_path: String::new(),
            snapshotter: "overlayfs".to_owned(),
        }
    }
}

impl Config {
    /// The directories of `config_path`.
    pub(crate) fn config_paths(&self) -> Vec<PathBuf> {
        self.config_path.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    }
}
