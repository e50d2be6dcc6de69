//! `[plugins."io.containerd.transfer.v1.local"]`.

use std::path::PathBuf;

use kevel_registry::{Budget, Parts};
use serde::{Deserialize, Serialize};

/// The plugin's table. Keys that containerd has mean what they mean there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Blobs of one pull downloaded at the same time; 0 for no limit.
    pub max_concurrent_downloads: usize,
    /// Bytes of the parts in which large layers are downloaded side by side; 0 for 8 MiB, less than 512 for one
    /// connection per layer, as in containerd.
    pub concurrent_layer_fetch_buffer: u64,
    /// Parts of one layer downloaded at the same time.
    pub max_concurrent_layer_parts: usize,
    /// Connections to registries at the same time, on the whole node; 0 for no limit.
    pub max_connections: usize,
    /// Layers unpacked at the same time, on the whole node; 0 for no such limit: then each pull unpacks as many as it
    /// downloads, or as there are processors.
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
            concurrent_layer_fetch_buffer: 0,
            max_concurrent_layer_parts: 4,
            max_connections: 64,
            max_concurrent_unpacks: 0,
            max_bytes_in_flight: 64 << 20,
            config_path: String::new(),
            snapshotter: "overlayfs".to_owned(),
        }
    }
}

impl Config {
    /// How blobs are cut into parts, by this configuration or by a pull that has its own `buffer`.
    pub(crate) fn parts(&self, buffer: Option<u64>) -> Parts {
        let size = match buffer.unwrap_or(self.concurrent_layer_fetch_buffer) {
            0 => 8 << 20,
            1..512 => 0,
            size => size,
        };
        Parts { size, connections: self.max_concurrent_layer_parts }
    }

    /// What all downloads may take together.
    pub(crate) fn budget(&self) -> Budget {
        let or = |limit: usize, otherwise: usize| if limit == 0 { otherwise } else { limit };
        Budget::new(or(self.max_connections, usize::MAX), or(self.max_bytes_in_flight, 64 << 20))
    }

    /// The directories of `config_path`.
    pub(crate) fn config_paths(&self) -> Vec<PathBuf> {
        self.config_path.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_parts() {
        let check = |configured: u64, own: Option<u64>, want: u64| {
            let config = Config { concurrent_layer_fetch_buffer: configured, ..Config::default() };
            assert_eq!(config.parts(own), Parts { size: want, connections: 4 }, "{configured} {own:?}");
        };
        check(0, None, 8 << 20);
        check(1, None, 0);
        check(4096, None, 4096);
        check(0, Some(1024), 1024);
        check(4096, Some(0), 8 << 20);
    }
}
