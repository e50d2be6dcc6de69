//! `io.containerd.cri.v1.images`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::registry::{Endpoints, HostAuth, HostConfig};

/// How images are pulled and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagesConfig {
    /// Where images are unpacked, unless a handler says otherwise.
    pub snapshotter: String,
    /// Do not tell snapshotters which layer and image a snapshot is for.
    pub disable_snapshot_annotations: bool,
    /// Let compressed layers go once they are unpacked. Another snapshotter, and a push, then need them fetched again.
    pub discard_unpacked_layers: bool,
    /// Layers downloaded at the same time for one pull.
    pub max_concurrent_downloads: usize,
    /// Bytes of the parts in which large layers are downloaded side by side; 0 for the transfer service's own, less than
    /// 512 for one connection per layer.
    pub concurrent_layer_fetch_buffer: u64,
    /// A pull fails when nothing arrives of something for so long; never for 0.
    #[serde(with = "kevel_model::duration")]
    pub image_pull_progress_timeout: Duration,
    /// Flush each layer's file system before the layer counts.
    pub image_pull_with_sync_fs: bool,
    /// Images by purpose that are never collected; `sandbox` is the pause image.
    pub pinned_images: BTreeMap<String, String>,
    /// Registries.
    pub registry: RegistryConfig,
    /// Encrypted layers.
    pub image_decryption: ImageDecryption,
    /// Snapshotter and platform of handlers, by handler.
    pub runtime_platforms: BTreeMap<String, RuntimePlatform>,
    /// Seconds between two counts of how large a container's own files are; a large directory is counted more rarely.
    pub stats_collect_period: u64,
}

/// How registries are found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryConfig {
    /// Directories with `hosts.toml` files, separated by colons.
    pub config_path: String,
    /// Headers of every request.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Deprecated: hosts to ask instead of a registry, by registry; `*` for all others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mirrors: BTreeMap<String, Endpoints>,
    /// Deprecated: TLS and credentials, by host.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, HostConfig>,
    /// Deprecated: credentials, by URL.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub auths: BTreeMap<String, HostAuth>,
}

/// Whose keys open encrypted layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageDecryption {
    /// `node`: the keys that the node's stream processors have.
    pub key_model: String,
}

impl Default for ImageDecryption {
    fn default() -> Self {
        Self { key_model: "node".to_owned() }
    }
}

/// Where a handler's images are unpacked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimePlatform {
    /// `os/architecture[/variant]`; the node's when empty.
    pub platform: String,
    /// The snapshotter; the general one when empty.
    pub snapshotter: String,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            snapshotter: "overlayfs".to_owned(),
            disable_snapshot_annotations: true,
            discard_unpacked_layers: false,
            max_concurrent_downloads: 3,
            concurrent_layer_fetch_buffer: 0,
            image_pull_progress_timeout: Duration::from_secs(5 * 60),
            image_pull_with_sync_fs: false,
            pinned_images: [("sandbox".to_owned(), "registry.k8s.io/pause:3.10.2".to_owned())].into(),
            registry: RegistryConfig::default(),
            image_decryption: ImageDecryption::default(),
            runtime_platforms: BTreeMap::new(),
            stats_collect_period: 10,
        }
    }
}

impl ImagesConfig {
    /// The pause image.
    pub fn sandbox_image(&self) -> &str {
        self.pinned_images.get("sandbox").map_or("registry.k8s.io/pause:3.10.2", String::as_str)
    }

    /// The directories with `hosts.toml` files.
    pub fn config_paths(&self) -> Vec<PathBuf> {
        let path = match self.registry.config_path.as_str() {
            "" => "/etc/containerd/certs.d:/etc/docker/certs.d",
            path => path,
        };
        path.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect()
    }
}
