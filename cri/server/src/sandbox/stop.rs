//! StopPodSandbox.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::join_all};
use kevel_model::Result;
use tonic::Status;

use crate::{
    answer::status,
    counters::timed,
    files::{self, blocking},
    identity,
    intent::{self, Intent},
    operation::stage,
    record::{Phase, SandboxRecord},
    server::Server,
};

/// How long the controller gets to end a sandbox.
const GRACE: Duration = Duration::from_secs(10);

impl Server {
    /// Ends every process of a pod and gives its network back. A pod that is gone or was stopped is no error.
    pub(crate) async fn stop_pod_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Status> {
        let pod = match self.index.pod(id) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other.map_err(|error| status(&error))?,
        };
        let (server, id) = (self.clone(), pod.record.id.clone());
        let work = || async move {
            stage("waiting for other work on the pod");
            let _alone = server.pods.alone(&id).await;
            let done = stop(&server, &id).await;
            if let Err(error) = &done {
                server.finish_later(&id, Intent::Stop(identity::now()), error);
            }
            done.map(|()| String::new())
        };
        self.operations.run(format!("stop pod sandbox {}", pod.record.id), Vec::new(), work).await.map(drop)
    }
}

/// Ends the sandbox itself.
async fn end(server: &Arc<Server>, record: &SandboxRecord) -> Result<()> {
    let controller = server.controller(&record.sandboxer)?;
    let ended = server.bounded("stopping a sandbox", controller.stop(&server.scope, &record.id, GRACE));
    let timer = server.counters.sandbox_runtime_stop.with_label_values(&[server.runtime_of(&record.handler)]);
    match timed(&timer, ended).await {
        Err(error) if !error.is_not_found() => Err(error.context(format!("stopping sandbox {}", record.id))),
        _ => {
            server.end_sandbox(&record.id, identity::now());
            Ok(())
        }
    }
}

/// Stops a pod that the caller has locked.
pub(super) async fn stop(server: &Arc<Server>, id: &str) -> Result<()> {
    let Ok(pod) = server.index.pod(id) else { return Ok(()) };
    if pod.record.phase != Phase::Stopped {
        let dir = server.settings.files.sandbox_state(&pod.record.id);
        let note = move || match intent::read(&dir) {
            Some(Intent::Remove) => Ok(()), // which stops it, too
            _ => intent::note(&dir, Intent::Stop(identity::now())),
        };
        blocking(note).await?;
    }
    stage("ending the containers");
    let containers = server.index.snapshot().containers_of(&pod.record.id);
    let stopped = join_all(containers.iter().map(|one| server.end_container(&one.record.id, Duration::ZERO)));
    let stopped = stopped.await;
    stopped.into_iter().collect::<Result<Vec<()>>>()?;
    if pod.record.phase == Phase::Stopped {
        return Ok(());
    }
    stage("telling NRI plugins");
    server.nri.stop_pod(&pod.record.id, server.described_pod(&pod.record.id)).await;
    stage("ending the sandbox and detaching the networks");
    // No container runs any more, so that nobody misses the network while the sandbox itself ends. None is cancelled by
    // another's failure, and all can be repeated.
    let (ended, disconnected, deleted) = tokio::join!(
        end(server, &pod.record).inspect(|_| stage("detaching the networks")),
        server.disconnect(&pod.record).inspect(|_| stage("ending the sandbox")),
        join_all(containers.iter().map(|one| server.delete_task(&one.record.id)))
    );
    ended?;
    disconnected?;
    deleted.into_iter().collect::<Result<Vec<()>>>()?;
    server.forget_image_volumes(&pod.record).await?;
    let (dirs, of) = (server.settings.files.clone(), pod.record.id.clone());
    blocking(move || files::unmount_sandbox(&dirs, &of)).await?;
    stage("writing the record");
    let record = SandboxRecord { phase: Phase::Stopped, pid: 0, ..SandboxRecord::clone(&pod.record) };
    server.save_sandbox(&record).await?;
    server.index.change_pod(&pod.record.id, |pod| pod.record = Arc::new(record));
    let dir = server.settings.files.sandbox_state(&pod.record.id);
    blocking(move || {
        if !matches!(intent::read(&dir), Some(Intent::Remove)) {
            intent::clear(&dir);
        }
        Ok(())
    })
    .await?;
    Ok(())
}
