//! RemovePodSandbox.

use std::sync::Arc;

use futures::future::join_all;
use kevel_model::Result;
use kevel_proto::runtime::v1::ContainerEventType;
use tonic::Status;

use super::stop::stop;
use crate::{
    answer::status,
    files::{self, blocking},
    index::Pod,
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
            let _alone = server.pods.alone(&id).await;
            stop(&server, &id).await?;
            remove(&server, &pod).await.map(|()| String::new())
        };
        self.operations.run(key, Vec::new(), work).await.map(drop)
    }
}

/// The record goes last: while it is there, somebody can try again.
async fn remove(server: &Arc<Server>, pod: &Pod) -> Result<()> {
    let id = &pod.record.id;
    let containers = server.index.snapshot().containers_of(id);
    let removed = join_all(containers.iter().map(|one| server.erase_container(&one.record.id))).await;
    removed.into_iter().collect::<Result<Vec<()>>>()?;
    let controller = server.controller(&pod.record.sandboxer)?;
    match server.bounded("removing a sandbox", controller.shutdown(&server.scope, id)).await {
        Err(error) if !error.is_not_found() => return Err(error.context(format!("removing sandbox {id}"))),
        _ => {}
    }
    let (dirs, of) = (server.settings.files.clone(), id.clone());
    blocking(move || files::remove_sandbox(&dirs, &of)).await?;
    match server.sandboxes.delete(&server.scope, id).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    server.index.remove_pod(id);
    server.usages.forget(id);
    server.tell(id, id, ContainerEventType::ContainerDeletedEvent);
    Ok(())
}
