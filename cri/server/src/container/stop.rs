//! StopContainer.

use std::{sync::Arc, time::Duration};

use kevel_contract::task::Kill;
use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::ContainerState;
use tokio::sync::watch;
use tonic::Status;

use crate::{
    answer::status,
    counters::timed,
    files::blocking,
    identity,
    intent::{self, Intent},
    operation::stage,
    server::Server,
};

/// The longest that the kernel and the shim may take to end a killed container.
pub(super) const KILLED: Duration = Duration::from_secs(60);
/// No grace is longer: a year.
const LONGEST: u64 = 366 * 24 * 3600;
const SIGKILL: u32 = 9;

impl Server {
    /// Ends a container: its stop signal, the grace of `timeout` seconds, SIGKILL. One that has ended or is gone is no
    /// error. Several callers may have different patience; each counts its own.
    pub(crate) async fn stop_container(self: &Arc<Self>, id: &str, timeout: i64) -> Result<(), Status> {
        let container = match self.index.container(id) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other.map_err(|error| status(&error))?,
        };
        let grace = Duration::from_secs(u64::try_from(timeout).unwrap_or(0).min(LONGEST));
        let (server, id) = (self.clone(), container.record.id.clone());
        let key = format!("stop container {id} within {}s", grace.as_secs());
        let work = || async move {
            server.note_stop(&id, grace).await?;
            let handler = server.index.pod(&container.record.sandbox_id).map(|pod| pod.record.handler.clone());
            let runtime = server.runtime_of(&handler.unwrap_or_default());
            let timer = server.counters.container_stop.with_label_values(&[runtime]);
            timed(&timer, server.end_container(&id, grace)).await?;
            let dir = server.settings.files.container_state(&id);
            blocking(move || {
                intent::clear(&dir);
                Ok(String::new())
            })
            .await
        };
        self.operations.run(key, Vec::new(), work).await.map(drop)
    }

    /// Notes that a container that runs is being stopped; one that was stopped sooner keeps its time.
    async fn note_stop(&self, id: &str, grace: Duration) -> Result<()> {
        if self.life(id).is_none() {
            return Ok(());
        }
        let at = identity::now().saturating_add(i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX));
        let dir = self.settings.files.container_state(id);
        blocking(move || match intent::read(&dir) {
            Some(Intent::Remove) => Ok(()),
            Some(Intent::Stop(sooner)) if sooner <= at => Ok(()),
            _ => intent::note(&dir, Intent::Stop(at)),
        })
        .await
    }

    /// As StopContainer, in the caller's task.
    pub(crate) async fn end_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<()> {
        let Ok(container) = self.index.container(id) else { return Ok(()) };
        match container.state.cri() {
            ContainerState::ContainerRunning | ContainerState::ContainerUnknown => {}
            ContainerState::ContainerCreated | ContainerState::ContainerExited => return Ok(()),
        }
        let Some(life) = self.life(id) else { return Ok(()) };
        let mut ended = life.ended.subscribe();
        if !grace.is_zero() {
            let by_itself = self.ask_to_end(id, container.record.stop_signal, &mut ended);
            if tokio::time::timeout(grace, by_itself).await.is_ok() {
                self.nri.stop_container(id, self.subject(id)).await;
                return Ok(());
            }
        }
        stage("killing the container");
        self.signal(id, SIGKILL, true).await?;
        stage("waiting for the end of the killed container");
        if tokio::time::timeout(KILLED, ended.wait_for(|ended| *ended)).await.is_err() {
            let message = format!("container {id} did not end within {KILLED:?} of SIGKILL");
            return Err(Error::deadline_exceeded(message));
        }
        self.nri.stop_container(id, self.subject(id)).await;
        Ok(())
    }

    /// Sends the stop signal and waits for the end. A runtime that fails or hangs does not keep the container from its
    /// grace, as the signal may have come through, nor from what comes after it.
    async fn ask_to_end(&self, id: &str, signal: u32, ended: &mut watch::Receiver<bool>) {
        stage("sending the stop signal");
        if let Err(error) = self.signal(id, signal, false).await {
            tracing::warn!(container = id, error = error.chain(), "the stop signal may not have come through");
        }
        stage("waiting for the container to stop by itself");
        let _ = ended.wait_for(|ended| *ended).await; // an error when somebody else has cleaned up after it
    }

    /// Sends a signal; a process that is gone needs none.
    async fn signal(&self, id: &str, signal: u32, all: bool) -> Result<()> {
        let kill = Kill { container_id: id.to_owned(), signal, all, ..Kill::default() };
        match self.bounded("signalling a container", self.tasks.kill(&self.scope, kill)).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map_err(|error| error.context(format!("sending signal {signal} to container {id}"))),
        }
    }
}
