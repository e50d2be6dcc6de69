//! NRI's view of pods and containers: what plugins are shown, and what they want done.
//!
//! Plugins are told by `kevel-cri-nri` at a few places: in `sandbox::{run, stop, remove}`, in
//! `container::{create, start, update, remove}`, and in `container::monitor` when a container has ended.

mod adjust;
mod describe;
mod domain;

pub(crate) use describe::{limits, requested};
pub(crate) use domain::Node;

use kevel_cri_nri::Stage;
use kevel_proto::runtime::v1::ContainerState;

use crate::server::Server;

impl Server {
    /// How far everything is that plugins have not been told of.
    pub(crate) fn stages(&self) -> Vec<(String, Stage)> {
        let now = self.index.snapshot();
        let pods = now.pods.values().map(|pod| {
            let stage = if pod.ready { Stage::Running } else { Stage::Ended };
            (pod.record.id.clone(), stage)
        });
        let containers = now.containers.values().map(|container| {
            let stage = match container.state.cri() {
                ContainerState::ContainerCreated => Stage::Made,
                ContainerState::ContainerRunning | ContainerState::ContainerUnknown => Stage::Running,
                ContainerState::ContainerExited => Stage::Ended,
            };
            (container.record.id.clone(), stage)
        });
        pods.chain(containers).collect()
    }
}
