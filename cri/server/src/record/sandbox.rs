//! A sandbox's record.

use kevel_cri_network::PodNetworkStatus;
use kevel_model::{Any, Error, Result};
use kevel_proto::{
    any::CRI_SANDBOX,
    runtime::v1::{LinuxContainerResources, PodSandboxConfig},
};
use serde::{Deserialize, Serialize};

use super::{EXTENSION, Stored};
use crate::selinux::Labels;

/// How far a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Side effects may exist; undone by a daemon that finds it after a crash.
    Creating,
    /// Made and started.
    Ready,
    /// Stopped: no process, no network.
    Stopped,
}

/// A sandbox, as it is kept with its record in the sandbox store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    /// Its identifier.
    pub(crate) id: String,
    /// The name it is reserved under.
    pub(crate) name: String,
    /// The request.
    pub(crate) config: Stored<PodSandboxConfig>,
    /// The runtime handler of the request; empty for the default one.
    pub(crate) handler: String,
    /// The controller that runs it.
    pub(crate) sandboxer: String,
    /// The pin of its network namespace; empty with the node's network.
    pub(crate) netns: String,
    /// What the networks gave it.
    pub(crate) network: Option<PodNetworkStatus>,
    /// What running it costs beside its containers, when it was changed.
    #[serde(default)]
    pub(crate) overhead: Option<Stored<LinuxContainerResources>>,
    /// What its containers may use together, when it was changed.
    #[serde(default)]
    pub(crate) resources: Option<Stored<LinuxContainerResources>>,
    /// How far it is.
    pub(crate) phase: Phase,
    /// Its SELinux labels.
    #[serde(default)]
    pub(crate) labels: Labels,
    /// Nanoseconds since the epoch.
    pub(crate) created_at: i64,
    /// Its first process; 0 when it has none.
    pub(crate) pid: u32,
    /// The task API address for its containers; empty when their shims are found in the ordinary way.
    pub(crate) address: String,
    /// The version of that API.
    pub(crate) api: u32,
}

impl SandboxRecord {
    /// For the sandbox store's extensions.
    pub(crate) fn pack(&self) -> Result<Any> {
        super::pack(CRI_SANDBOX, self)
    }

    /// From a sandbox of the store.
    pub(crate) fn unpack(sandbox: &kevel_contract::sandbox::Sandbox) -> Result<Self> {
        let any = sandbox.extensions.get(EXTENSION);
        let any = any.ok_or_else(|| Error::data_loss(format!("sandbox {} has no CRI record", sandbox.id)))?;
        super::unpack(CRI_SANDBOX, any)
    }

    /// Whether the pod has the node's network.
    pub(crate) fn host_network(&self) -> bool {
        self.netns.is_empty()
    }
}
