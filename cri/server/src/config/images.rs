//! `io.containerd.cri.v1.images`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// How images are pulled and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagesConfig {
    /// Where images are unpacked, unless a handler says otherwise.
    pub snapshotter: String,
    /// Do not tell snapshotters which layer and image a snapshot is for.
    pub disable_snapshot_annotations: bool,
    /// Images by purpose that are never collected; `sandbox` is the pause image.
    pub pinned_images: BTreeMap<String, String>,
    /// Registries.
    pub registry: RegistryConfig,
    /// Snapshotter and platform of handlers, by handler.
    pub runtime_platforms: BTreeMap<String, RuntimePlatform>,
}

/// How registries are found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryConfig {
    /// Directories with `hosts.toml` files, separated by colons.
    pub config_path: String,
    /// Headers of every request.
    pub headers: BTreeMap<String, Vec<String>>,
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
            pinned_images: [("sandbox".to_owned(), "registry.k8s.io/pause:3.10.2".to_owned())].into(),
            registry: RegistryConfig::default(),
            runtime_platforms: BTreeMap::new(),
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
