//! ListContainers and StreamContainers: from memory.

use std::sync::Arc;

use kevel_model::{Code, Error, Result};
use kevel_proto::runtime::v1::{Container as Cri, ContainerFilter, ContainerState};

use crate::{index::Container, server::Server};

impl Server {
    /// Containers that match, newest first.
    pub(crate) fn list_containers(&self, filter: Option<&ContainerFilter>) -> Result<Vec<Cri>> {
        let filter = filter.cloned().unwrap_or_default();
        let found = |result: Result<String>| match result {
            Err(error) if error.code() == Code::NotFound => Ok(Err(())),
            other => other.map(Ok),
        };
        let id = match filter.id.as_str() {
            "" => None,
            id => Some(found(self.index.container(id).map(|one| one.record.id.clone()))?),
        };
        let pod = match filter.pod_sandbox_id.as_str() {
            "" => None,
            id => Some(found(self.index.pod(id).map(|pod| pod.record.id.clone()))?),
        };
        if id == Some(Err(())) || pod == Some(Err(())) {
            return Ok(Vec::new());
        }
        let state = filter.state.map(|state| ContainerState::try_from(state.state));
        let state = state.transpose().map_err(|_| Error::invalid_argument("filter.state.state: means nothing"))?;
        let matches = |one: &&Arc<Container>| {
            id.as_ref().is_none_or(|id| id.as_ref() == Ok(&one.record.id))
                && pod.as_ref().is_none_or(|pod| pod.as_ref() == Ok(&one.record.sandbox_id))
                && state.is_none_or(|state| state == one.state.cri())
                && filter.label_selector.iter().all(|(key, value)| one.record.config.labels.get(key) == Some(value))
        };
        let now = self.index.snapshot();
        let mut list: Vec<Cri> = now.containers.values().filter(matches).map(|one| one.describe()).collect();
        list.sort_by_key(|one| std::cmp::Reverse(one.created_at));
        Ok(list)
    }
}

impl Container {
    fn describe(&self) -> Cri {
        let config = &self.record.config;
        Cri {
            id: self.record.id.clone(),
            pod_sandbox_id: self.record.sandbox_id.clone(),
            metadata: config.metadata.clone(),
            image: config.image.clone(),
            image_ref: self.record.image_id.clone(),
            image_id: self.record.image_id.clone(),
            state: self.state.cri() as i32,
            created_at: self.record.created_at,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }
    }
}
