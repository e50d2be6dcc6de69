//! The life of a pod.

use kevel_model::Result;

use super::{Nri, Subject, ask::logged};
use crate::{
    api::{Event, LinuxResources, PodSandbox, UpdatePodSandboxRequest},
    plugin::Question,
};

fn of(pod: PodSandbox) -> Subject {
    Subject { pod, container: None }
}

impl Nri {
    /// A sandbox runs, and nobody has been told of it yet. A plugin's refusal is the failure of the pod; plugins that had
    /// agreed are told of its end then.
    ///
    /// # Errors
    /// The refusal.
    pub async fn run_pod(&self, id: &str, pod: impl Future<Output = PodSandbox> + Send) -> Result<()> {
        let mut described = None;
        let describe = async {
            described = Some(pod.await);
            described.clone().map(of)
        };
        let told = self.notify(Event::RunPodSandbox, id, describe).await;
        if told.is_err() {
            self.undo_pod(id, async { described }).await;
        }
        told
    }

    /// A pod that plugins were told of will not be.
    pub async fn undo_pod(&self, id: &str, pod: impl Future<Output = Option<PodSandbox>> + Send) {
        let pod = if self.is_heard() { pod.await } else { None };
        self.stop_pod(id, async { pod.clone() }).await;
        self.remove_pod(id, async { pod.clone() }).await;
    }

    /// A pod's limits are about to change.
    ///
    /// # Errors
    /// A plugin's refusal.
    pub async fn update_pod(
        &self,
        pod: impl Future<Output = Option<PodSandbox>> + Send,
        overhead: Option<LinuxResources>,
        limits: Option<LinuxResources>,
    ) -> Result<()> {
        let plugins = self.plugins();
        if !plugins.iter().any(|plugin| plugin.events.has(Event::UpdatePodSandbox)) {
            return Ok(());
        }
        let Some(pod) = pod.await else { return Ok(()) };
        let _alone = self.stages.alone(&pod.id).await;
        let request =
            UpdatePodSandboxRequest { pod: Some(pod), overhead_linux_resources: overhead, linux_resources: limits };
        let question = Question::request(Event::UpdatePodSandbox, &request);
        for plugin in plugins.iter() {
            plugin.ask(&question).await?;
        }
        Ok(())
    }

    /// A pod's limits have changed.
    pub async fn post_update_pod(&self, id: &str, pod: impl Future<Output = Option<PodSandbox>> + Send) {
        let told = self.notify(Event::PostUpdatePodSandbox, id, async { pod.await.map(of) }).await;
        logged(id, Event::PostUpdatePodSandbox, told);
    }

    /// A pod's containers have ended, and its sandbox is about to. Told once.
    pub async fn stop_pod(&self, id: &str, pod: impl Future<Output = Option<PodSandbox>> + Send) {
        let told = self.notify(Event::StopPodSandbox, id, async { pod.await.map(of) }).await;
        logged(id, Event::StopPodSandbox, told);
    }

    /// A pod is about to be gone from lists. Told once.
    pub async fn remove_pod(&self, id: &str, pod: impl Future<Output = Option<PodSandbox>> + Send) {
        let told = self.notify(Event::RemovePodSandbox, id, async { pod.await.map(of) }).await;
        logged(id, Event::RemovePodSandbox, told);
    }
}
