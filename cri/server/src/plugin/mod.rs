//! The plugins of the CRI: `cri.v1.images` and `cri.v1.runtime` with their configuration, the `podsandbox` controller,
//! and the services themselves. NRI has a plugin of its own, in `kevel-cri-nri`.

mod cri;
mod images;
mod podsandbox;
mod runtime;

pub use cri::{CriConfig, CriPlugin};
pub use images::{CriImages, ImagesPlugin};
pub use podsandbox::PodSandboxPlugin;
pub use runtime::{CriRuntime, RuntimePlugin};

/// The directory that the CRI's files are in, below root and state: that of containerd's first CRI plugin.
const DIR: &str = "io.containerd.grpc.v1.cri";
/// Properties of the daemon.
const ROOT: &str = "io.containerd.plugin.root";
const STATE: &str = "io.containerd.plugin.state";

/// Adds every plugin of the CRI to the daemon's list.
pub fn register(registry: &mut kevel_plugin::Registry) {
    registry
        .add::<kevel_cri_nri::NriPlugin>()
        .add::<ImagesPlugin>()
        .add::<RuntimePlugin>()
        .add::<PodSandboxPlugin>()
        .add::<CriPlugin>();
}

fn property(cx: &kevel_plugin::InitContext, name: &str) -> Result<std::path::PathBuf, kevel_plugin::InitError> {
    let missing = || kevel_plugin::InitError::failed(format!("the daemon does not tell {name}"));
    cx.property(name).map(std::path::PathBuf::from).ok_or_else(missing)
}
