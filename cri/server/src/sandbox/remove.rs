//! RemovePodSandbox.

use std::sync::Arc;

use futures::future::join_all;
use kevel_model::Result;
use tonic::Status;

use super::stop::stop;
use crate::{
    answer::status,
    counters::timed,
    files::{self, blocking},
    index::Pod,
    intent::{self, Intent},
    operation::stage,
    server::Server,
};

impl Server {
    /// Stops a pod and removes every trace of it and its containers. A pod that is gone is no error.
    pub(crate) async fn remove_pod_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Status> {
        let pod = match self.index.pod(id) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other.map_err(|error| status(&error))?,
        };
        let (server, id) = (self.clone(), pod.record.id.clone());
        let key = format!("remove pod sandbox {id}");
        let work = || async move {
            stage("waiting for other work on the pod");
            let _alone = server.pods.alone(&id).await;
            if server.index.pod(&id).is_err() {
                return Ok(String::new()); // what was left of it was finished meanwhile
            }
            let timer = server.counters.sandbox_remove.with_label_values(&[server.runtime_of(&pod.record.handler)]);
            let done = timed(&timer, stop_and_remove(&server, &pod)).await;
            if let Err(error) = &done {
                server.finish_later(&id, Intent::Remove, error);
            }
            done.map(|()| String::new())
        };
        self.operations.run(key, Vec::new(), work).await.map(drop)
    }
}

/// Removes a pod that the caller has locked. That is noted before the pod is stopped for it: a removal that fails at that is
/// still one for the next daemon.
pub(super) async fn stop_and_remove(server: &Arc<Server>, pod: &Pod) -> Result<()> {
    let dir = server.settings.files.sandbox_state(&pod.record.id);
    blocking(move || intent::note(&dir, Intent::Remove)).await?;
    stop(server, &pod.record.id).await?;
    remove(server, pod).await
}

/// The record goes last: while it is there, somebody can try again.
async fn remove(server: &Arc<Server>, pod: &Pod) -> Result<()> {
    let id = &pod.record.id;
    stage("removing the containers");
    let containers = server.index.snapshot().containers_of(id);
    let removed = join_all(containers.iter().map(|one| server.erase_container(&one.record.id))).await;
    removed.into_iter().collect::<Result<Vec<()>>>()?;
    // Described while there is something to describe, told when nothing is left.
    let described = if server.nri.is_heard() { server.described_pod(id).await } else { None };
    stage("removing the sandbox");
    let controller = server.controller(&pod.record.sandboxer)?;
    match server.bounded("removing a sandbox", controller.shutdown(&server.scope, id)).await {
        Err(error) if !error.is_not_found() => return Err(error.context(format!("removing sandbox {id}"))),
        _ => {}
    }
    let (dirs, of) = (server.settings.files.clone(), id.clone());
    blocking(move || files::remove_sandbox_root(&dirs, &of)).await?;
    let _entered = server.nri.enter().await;
    server.nri.remove_pod(id, async { described }).await;
    match server.sandboxes.delete(&server.scope, id).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    // The note of what is done goes with the last directory, after the record: until then it is not done.
    let dir = server.settings.files.sandbox_state(id);
    if let Err(error) = blocking(move || files::remove_dir(&dir)).await {
        tracing::warn!(
            sandbox = id,
            error = error.chain(),
            "directory of a removed sandbox stays until the next start"
        );
    }
    server.index.remove_pod(id);
    server.settings.selinux.release(&pod.record.labels);
    server.meter.forget(id);
    Ok(())
}
