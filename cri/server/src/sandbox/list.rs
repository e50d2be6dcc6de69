//! ListPodSandbox and StreamPodSandboxes: from memory.

use kevel_model::{Code, Error, Result};
use kevel_proto::runtime::v1::{PodSandbox, PodSandboxFilter, PodSandboxState};

use crate::{index::Pod, server::Server};

impl Server {
    /// Pods that match, newest first.
    pub(crate) fn list_pods(&self, filter: Option<&PodSandboxFilter>) -> Result<Vec<PodSandbox>> {
        let filter = filter.cloned().unwrap_or_default();
        let id = match filter.id.as_str() {
            "" => None,
            id => match self.index.pod(id) {
                Ok(pod) => Some(pod.record.id.clone()),
                Err(error) if error.code() == Code::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            },
        };
        let state = filter.state.map(|state| PodSandboxState::try_from(state.state));
        let state = state.transpose().map_err(|_| Error::invalid_argument("filter.state.state: means nothing"))?;
        let matches = |pod: &&std::sync::Arc<Pod>| {
            id.as_ref().is_none_or(|id| *id == pod.record.id)
                && state.is_none_or(|state| state == pod.state())
                && filter.label_selector.iter().all(|(key, value)| pod.record.config.labels.get(key) == Some(value))
        };
        let now = self.index.snapshot();
        let mut pods: Vec<PodSandbox> = now.pods.values().filter(matches).map(|pod| pod.describe()).collect();
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        Ok(pods)
    }
}

impl Pod {
    /// As CRI calls it.
    pub(crate) fn state(&self) -> PodSandboxState {
        if self.ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
    }

    fn describe(&self) -> PodSandbox {
        PodSandbox {
            id: self.record.id.clone(),
            metadata: self.record.config.metadata.clone(),
            state: self.state() as i32,
            created_at: self.record.created_at,
            labels: self.record.config.labels.clone(),
            annotations: self.record.config.annotations.clone(),
            runtime_handler: self.record.handler.clone(),
        }
    }
}
