//! Looking after networks: what belongs to no pod is given back when the daemon has started and then now and again, and
//! attachments of pods that run are checked.

use std::sync::Arc;

use kevel_model::Filters;

use crate::{
    index::Pod,
    record::{KIND, Phase, SANDBOX, SandboxRecord},
    server::Server,
    translate,
};

impl Server {
    /// Looks after every network until the daemon ends.
    pub async fn tend_networks(self: Arc<Self>) {
        let period = self.settings.config.cni.gc_period;
        self.collect().await;
        while !period.is_zero() {
            tokio::time::sleep(period).await;
            self.collect().await;
            let pods = self.index.snapshot().pods;
            for pod in pods.values().filter(|pod| pod.ready) {
                if let Err(why) = self.check_network(pod).await {
                    tracing::warn!(sandbox = pod.record.id, why, "the network of a pod is not as it was made");
                }
            }
        }
    }

    async fn collect(&self) {
        for network in self.networks() {
            if let Err(error) = network.gc(self.attached()).await {
                tracing::warn!(error = error.chain(), "giving back what belongs to no pod");
            }
        }
    }

    /// Every pod that may be attached, from the store, where a pod is before it is attached.
    async fn attached(&self) -> Option<Vec<String>> {
        let filters = Filters::parse(&[format!("labels.\"{KIND}\"=={SANDBOX}")]).ok()?;
        let sandboxes = self.sandboxes.list(&self.scope, &filters).await;
        let sandboxes = sandboxes
            .inspect_err(|error| tracing::warn!(error = error.chain(), "networks are not cleaned: no list of pods"))
            .ok()?;
        // One whose record cannot be read counts as attached: giving back what is in use is the worse mistake.
        let stopped = |record: SandboxRecord| record.phase == Phase::Stopped;
        let attached = sandboxes.into_iter().filter(|one| !SandboxRecord::unpack(one).is_ok_and(stopped));
        Some(attached.map(|one| one.id).collect())
    }

    /// Asks the plugins whether a pod's attachments are as they were made; says what is not.
    pub(super) async fn check_network(&self, pod: &Pod) -> Result<(), String> {
        let record = &pod.record;
        if record.host_network() {
            return Ok(());
        }
        let described = translate::network(&record.id, &record.config, &record.netns).map_err(|error| error.chain())?;
        let network = self.network(&record.handler).map_err(|error| error.chain())?;
        network.check(&described).await.map_err(|error| error.chain())
    }
}
