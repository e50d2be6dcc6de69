//! A container's record.

use std::collections::BTreeMap;

use kevel_model::{Any, Error, Result};
use kevel_proto::{
    any::CRI_CONTAINER,
    runtime::v1::{ContainerConfig, Mount},
};
use serde::{Deserialize, Serialize};

use super::{EXTENSION, Stored};
use crate::selinux::Labels;

/// A directory of the daemon's that is mounted for a volume which the image declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Where it appears in the container.
    pub(crate) container_path: String,
    /// Where it is on the node.
    pub(crate) host_path: String,
}

/// A container, as it is kept with its record in the container store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    /// Its identifier.
    pub(crate) id: String,
    /// The name it is reserved under in its pod.
    pub(crate) name: String,
    /// Its pod.
    pub(crate) sandbox_id: String,
    /// The request.
    pub(crate) config: Stored<ContainerConfig>,
    /// The image's identifier, the digest of its config.
    pub(crate) image_id: String,
    /// Who the process runs as.
    pub(crate) uid: i64,
    /// Its primary group.
    pub(crate) gid: i64,
    /// Its additional groups.
    pub(crate) groups: Vec<i64>,
    /// Where its log is; empty for none.
    pub(crate) log_path: String,
    /// The signal that stops it.
    pub(crate) stop_signal: u32,
    /// Volumes that the image declares.
    pub(crate) volumes: Vec<Volume>,
    /// Identifiers of images that are mounted as volumes, by the mount's place in the request.
    #[serde(default)]
    pub(crate) image_mounts: BTreeMap<usize, String>,
    /// Its SELinux labels.
    #[serde(default)]
    pub(crate) labels: Labels,
    /// Nanoseconds since the epoch.
    pub(crate) created_at: i64,
    /// Whether everything was made; undone by a daemon that finds it unfinished.
    pub(crate) complete: bool,
}

impl ContainerRecord {
    /// The mounts of the request, with the images that volumes are made of.
    pub(crate) fn mounts(&self) -> Vec<Mount> {
        let mut mounts = self.config.mounts.clone();
        for (index, id) in &self.image_mounts {
            if let Some(image) = mounts.get_mut(*index).and_then(|mount| mount.image.as_mut()) {
                image.image_ref.clone_from(id);
            }
        }
        mounts
    }

    /// For the container store's extensions.
    pub(crate) fn pack(&self) -> Result<Any> {
        super::pack(CRI_CONTAINER, self)
    }

    /// From a container of the store.
    pub(crate) fn unpack(container: &kevel_contract::container::Container) -> Result<Self> {
        let any = container.extensions.get(EXTENSION);
        let any = any.ok_or_else(|| Error::data_loss(format!("container {} has no CRI record", container.id)))?;
        super::unpack(CRI_CONTAINER, any)
    }
}
