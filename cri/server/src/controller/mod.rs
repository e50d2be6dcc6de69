//! The `podsandbox` controller: a pod's sandbox is an ordinary container that runs the pause image.

mod end;
mod make;

pub(crate) use end::delete_ended;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    container::ContainerStore,
    introspection::Introspection,
    sandbox::{ControllerBackend, Create, Exit, NOT_READY, READY, Sandbox, Started, Status},
    snapshot::Snapshotter,
    task::{self, Tasks},
};
use kevel_model::{Error, Platform, Result};

use crate::{image::Images, server::Settings};

/// Runs pods' sandboxes as containers.
pub(crate) struct PauseController {
    pub(crate) containers: ContainerStore,
    pub(crate) tasks: Tasks,
    pub(crate) snapshotters: Arc<BTreeMap<String, Snapshotter>>,
    pub(crate) introspection: Introspection,
    pub(crate) images: Arc<Images>,
    pub(crate) settings: Arc<Settings>,
    /// Handlers of sandboxes that were created and not started yet, by sandbox.
    pub(crate) created: Mutex<BTreeMap<String, String>>,
}

impl PauseController {
    fn snapshotter(&self, name: &str) -> Result<&Snapshotter> {
        let missing = || Error::failed_precondition(format!("there is no snapshotter {name:?}"));
        self.snapshotters.get(name).ok_or_else(missing)
    }

    fn take_created(&self, id: &str) -> Option<String> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }
}

#[async_trait]
impl ControllerBackend for PauseController {
    async fn create(&self, scope: &Scope, create: Create) -> Result<()> {
        self.make(scope, create).await
    }

    async fn start(&self, scope: &Scope, id: &str) -> Result<Started> {
        self.run(scope, id).await
    }

    async fn platform(&self, _: &Scope, _: &str) -> Result<Platform> {
        Ok(Platform::host())
    }

    async fn stop(&self, scope: &Scope, id: &str, timeout: Duration) -> Result<()> {
        self.end(scope, id, timeout).await
    }

    async fn wait(&self, scope: &Scope, id: &str) -> Result<Exit> {
        match self.tasks.wait(scope, id, "").await {
            Ok(exit) => Ok(Exit { status: exit.status, at: exit.at }),
            Err(error) if error.is_not_found() => Ok(Exit { status: 255, at: SystemTime::now() }),
            Err(error) => Err(error),
        }
    }

    async fn status(&self, scope: &Scope, id: &str, _verbose: bool) -> Result<Status> {
        let container = self.containers.get(scope, id).await?;
        let mut status =
            Status { state: NOT_READY.to_owned(), created_at: Some(container.created_at), ..Status::default() };
        match self.tasks.get(scope, id, "").await {
            Ok(process) => {
                status.pid = process.pid;
                status.exited_at = process.exited_at;
                if process.state == task::State::Running {
                    status.state = READY.to_owned();
                }
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(status)
    }

    async fn shutdown(&self, scope: &Scope, id: &str) -> Result<()> {
        self.erase(scope, id).await
    }

    async fn metrics(&self, scope: &Scope, id: &str) -> Result<task::Metric> {
        let filters = kevel_model::Filters::parse(&[format!("id=={id}")])?;
        let found = self.tasks.metrics(scope, &filters).await?.into_iter().next();
        found.ok_or_else(|| Error::not_found(format!("sandbox {id} has no task")))
    }

    async fn update(&self, _: &Scope, _: Sandbox, _: &[String]) -> Result<()> {
        Err(Error::unimplemented("the podsandbox controller changes nothing of a sandbox that exists"))
    }
}
