//! The task service: the contract's calls, each in terms of one or two calls to a container's shim.
//!
//! Shims publish the events of their tasks themselves, so nothing is published here.

mod checkpoint;
mod create;
mod delete;
mod list;
mod process;
mod restore;

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    container::ContainerStore,
    task::{Backend, Checkpoint, Create, Deleted, Exec, Exit, Kill, Metric, Pid, Process, Update},
};
use kevel_model::{Descriptor, Error, Filters, Result};

pub use checkpoint::Checkpoints;

use tracing::Instrument as _;

use crate::{Dirs, Role, Shim, ShimManager};

/// The task service over the shims of this node.
#[derive(Clone, Debug)]
pub struct TaskManager {
    shims: ShimManager,
    dirs: Dirs,
    containers: ContainerStore,
    checkpoints: Option<Checkpoints>,
}

impl TaskManager {
    /// A task service whose bundles are in `dirs` and whose containers are recorded in `containers`.
    pub fn new(shims: ShimManager, dirs: Dirs, containers: ContainerStore) -> Self {
        Self { shims, dirs, containers, checkpoints: None }
    }

    /// The same with checkpoints in the content store.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: Checkpoints) -> Self {
        Self { checkpoints: Some(checkpoints), ..self }
    }

    fn checkpoints(&self) -> Result<&Checkpoints> {
        let message = "there is no diff service, which packs and unpacks the checkpoints of the content store";
        self.checkpoints.as_ref().ok_or_else(|| Error::unimplemented(message))
    }

    async fn shim(&self, scope: &Scope, id: &str) -> crate::Result<std::sync::Arc<Shim>> {
        self.shims.get(&scope.namespace, id, Role::Task).await
    }
}

/// Runs work to its end even if whoever asked for it hangs up: half-made containers help nobody.
async fn owned<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("the work of a call ended early").with_source(error)),
    }
}

#[async_trait]
impl Backend for TaskManager {
    async fn create(&self, scope: &Scope, create: Create) -> Result<u32> {
        let (this, scope) = (self.clone(), scope.clone());
        owned(async move { this.create_task(&scope, create).await }).await
    }

    async fn start(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<u32> {
        Ok(self.start_process(scope, container_id, exec_id).await?)
    }

    async fn delete(&self, scope: &Scope, container_id: &str) -> Result<Deleted> {
        let (this, scope, id) = (self.clone(), scope.clone(), container_id.to_owned());
        owned(async move { Ok(this.delete_task(&scope, &id).await?) }).await
    }

    async fn delete_process(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Deleted> {
        Ok(self.delete_exec(scope, container_id, exec_id).await?)
    }

    async fn get(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Process> {
        Ok(self.state(scope, container_id, exec_id).await?)
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Process>> {
        Ok(self.list_tasks(scope, filters).await)
    }

    async fn kill(&self, scope: &Scope, kill: Kill) -> Result<()> {
        Ok(self.kill_process(scope, kill).await?)
    }

    async fn exec(&self, scope: &Scope, exec: Exec) -> Result<()> {
        Ok(self.add_exec(scope, exec).await?)
    }

    async fn resize(&self, scope: &Scope, container_id: &str, exec_id: &str, width: u32, height: u32) -> Result<()> {
        Ok(self.resize_terminal(scope, (container_id, exec_id), width, height).await?)
    }

    async fn close_io(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<()> {
        Ok(self.close_stdin(scope, container_id, exec_id).await?)
    }

    async fn pause(&self, scope: &Scope, container_id: &str) -> Result<()> {
        Ok(self.pause_task(scope, container_id).await?)
    }

    async fn resume(&self, scope: &Scope, container_id: &str) -> Result<()> {
        Ok(self.resume_task(scope, container_id).await?)
    }

    async fn pids(&self, scope: &Scope, container_id: &str) -> Result<Vec<Pid>> {
        Ok(self.task_pids(scope, container_id).await?)
    }

    async fn checkpoint(&self, scope: &Scope, checkpoint: Checkpoint) -> Result<Vec<Descriptor>> {
        let (this, scope) = (self.clone(), scope.clone());
        owned(async move { this.checkpoint_task(&scope, checkpoint).await }).await
    }

    async fn update(&self, scope: &Scope, update: Update) -> Result<()> {
        Ok(self.update_task(scope, update).await?)
    }

    async fn metrics(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Metric>> {
        Ok(self.task_metrics(scope, filters).await)
    }

    async fn wait(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Exit> {
        Ok(self.wait_process(scope, container_id, exec_id).await?)
    }
}
