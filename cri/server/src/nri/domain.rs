//! What plugins may ask for: the list of everything, other limits, the end of a container.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kevel_cri_nri::{
    Domain,
    api::{Container, LinuxResources, PodSandbox},
};
use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::ContainerState;

use crate::server::Server;

/// How long an update waits for what else is being done to the container. Its end is no bound of that other operation,
/// which may itself wait for an update.
const BUSY: Duration = Duration::from_secs(10);

/// The server, as plugins see it.
pub(crate) struct Node(pub(crate) Arc<Server>);

#[async_trait]
impl Domain for Node {
    async fn list(&self) -> Result<(Vec<PodSandbox>, Vec<Container>)> {
        let server = &self.0;
        let now = server.index.snapshot();
        let mut pods = Vec::with_capacity(now.pods.size());
        for pod in now.pods.values() {
            pods.push(server.describe_pod(&pod.record).await);
        }
        let mut containers = Vec::new();
        for container in now.containers.values() {
            if matches!(container.state.cri(), ContainerState::ContainerCreated | ContainerState::ContainerRunning) {
                containers.push(server.describe_for_plugins(container).await);
            }
        }
        Ok((pods, containers))
    }

    async fn update(&self, container: &str, limits: &LinuxResources) -> Result<()> {
        let server = &self.0;
        let Ok(found) = server.index.container(container) else { return Ok(()) };
        let id = &found.record.id;
        let busy = |_| Error::aborted(format!("container {id}: another operation goes on for longer than {BUSY:?}"));
        let _alone = tokio::time::timeout(BUSY, server.locks.alone(id)).await.map_err(busy)?;
        server.update_for_plugin(id, limits).await
    }

    async fn evict(&self, container: &str, _: &str) -> Result<()> {
        self.0.end_container(container, Duration::ZERO).await
    }
}
