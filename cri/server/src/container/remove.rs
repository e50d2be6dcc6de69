//! RemoveContainer.

use std::{sync::Arc, time::Duration};

use kevel_model::Result;
use tonic::Status;

use crate::{
    answer::status,
    counters::timed,
    files::{blocking, remove_dir},
    intent::{self, Intent},
    operation::stage,
    server::Server,
};

impl Server {
    /// Ends a container with force and removes every trace of it. One that is gone is no error.
    pub(crate) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<(), Status> {
        let container = match self.index.container(id) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other.map_err(|error| status(&error))?,
        };
        let (server, id) = (self.clone(), container.record.id.clone());
        let key = format!("remove container {id}");
        let work = || async move {
            stage("waiting for other work on the container");
            let handler = server.index.pod(&container.record.sandbox_id).map(|pod| pod.record.handler.clone());
            let runtime = server.runtime_of(&handler.unwrap_or_default());
            let timer = server.counters.container_remove.with_label_values(&[runtime]);
            timed(&timer, server.erase_container(&id)).await?;
            server.images.make_room().await;
            Ok(String::new())
        };
        self.operations.run(key, Vec::new(), work).await.map(drop)
    }

    /// As RemoveContainer, in the caller's task. The record goes last: while it is there, somebody can try again.
    pub(crate) async fn erase_container(self: &Arc<Self>, id: &str) -> Result<()> {
        // Ended without the lock first: plugins may want to update other containers then, whose own end may wait for
        // an update of this one.
        self.end_container(id, Duration::ZERO).await?;
        self.nri.stop_container(id, self.subject(id)).await;
        let _alone = self.locks.alone(id).await;
        let Ok(container) = self.index.container(id) else { return Ok(()) };
        let dir = self.settings.files.container_state(id);
        blocking(move || intent::note(&dir, Intent::Remove)).await?;
        self.end_container(id, Duration::ZERO).await?;
        stage("removing the container");
        self.bury(id);
        let described = if self.nri.is_heard() { self.subject(id).await } else { None };
        self.erase_record(id).await?;
        let _entered = self.nri.enter().await;
        self.nri.remove_container(id, async { described }).await;
        self.index.remove_container(id);
        self.settings.selinux.release(&container.record.labels);
        self.meter.forget(id);
        Ok(())
    }

    /// Removes what the stores and the disk have of a container that does not run. The snapshot and the record that keeps
    /// it go in one commit; should the record alone go, the garbage collector takes the snapshot.
    pub(crate) async fn erase_record(&self, id: &str) -> Result<()> {
        let entry = match self.containers.get(&self.scope, id).await {
            Err(error) if error.is_not_found() => None,
            other => Some(other?),
        };
        self.bounded("deleting a task", self.delete_task(id)).await?;
        let dir = self.settings.files.container(id);
        blocking(move || remove_dir(&dir)).await?;
        let snapshotter = entry.as_ref().and_then(|entry| self.snapshotters.get(&entry.snapshotter));
        let snapshot = async {
            let Some(snapshotter) = snapshotter else { return Ok(()) };
            self.images.forget_layer(&entry.as_ref().map_or_else(String::new, |entry| entry.snapshotter.clone()), id);
            snapshotter.remove(&self.scope, id).await
        };
        let gone = |result: Result<()>| match result {
            Err(error) if !error.is_not_found() => Err(error.context(format!("removing container {id}"))),
            _ => Ok(()),
        };
        let (snapshot, record) = tokio::join!(snapshot, self.containers.delete(&self.scope, id));
        gone(snapshot)?;
        gone(record)?;
        // The note of what is done goes last: until then it is not done.
        let dir = self.settings.files.container_state(id);
        if let Err(error) = blocking(move || remove_dir(&dir)).await {
            tracing::warn!(
                container = id,
                error = error.chain(),
                "directory of a removed container stays until the next start"
            );
        }
        Ok(())
    }
}
