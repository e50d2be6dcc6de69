//! Create: a bundle and a shim from the container's record, then the task in the shim.

use kevel_contract::{Scope, container::Container, task::Create};
use kevel_model::{Context as _, Result};
use kevel_proto::shim::task::{CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, method};

use super::{TaskManager, restore};
use crate::{
    Role, Shim,
    manager::{Join, Launch},
    wire,
};

impl TaskManager {
    pub(super) async fn create_task(&self, scope: &Scope, create: Create) -> Result<u32> {
        let images = restore::images(self, scope, &create).await?;
        let container = self.containers.get(scope, &create.container_id).await?;
        let shim = self.shims.start(launch(self, scope, &container, &create)).await;
        let shim = shim.context(|| format!("starting the shim of task {}", container.id))?;
        let checkpoint = match images.unpack(self, scope, &shim.bundle).await {
            Ok(path) => path.unwrap_or_default(),
            Err(error) => {
                self.undo(&shim).await;
                return Err(error);
            }
        };
        let request = CreateTaskRequest {
            id: container.id.clone(),
            bundle: shim.bundle.path.display().to_string(),
            rootfs: create.rootfs.into_iter().map(wire::mount).collect(),
            terminal: create.stdio.terminal,
            stdin: create.stdio.stdin,
            stdout: create.stdio.stdout,
            stderr: create.stdio.stderr,
            checkpoint,
            parent_checkpoint: String::new(),
            options: create.options.or(container.runtime.options).map(wire::any),
        };
        let limit = self.shims.timeouts().work;
        match self.shims.call::<_, CreateTaskResponse>(&shim, method::CREATE, &request, Some(limit)).await {
            Ok(response) => {
                shim.set_init(response.pid);
                Ok(response.pid)
            }
            Err(error) => {
                self.undo(&shim).await;
                Err(error).context(|| format!("creating task {}", container.id))
            }
        }
    }

    /// Removes a task that was not, or not quite, created. A shim that died meanwhile is cleaned up by its watch.
    async fn undo(&self, shim: &Shim) {
        let ending = shim.ending.lock().await;
        if shim.gone.is_cancelled() || shim.is_closed() {
            return;
        }
        self.shims.unstick(shim).await;
        let request = DeleteRequest { id: shim.id.clone(), exec_id: String::new() };
        let limit = self.shims.timeouts().cleanup;
        let deleted = shim.task::<_, DeleteResponse>(method::DELETE, &request, Some(limit)).await; // it may not exist
        let silent = deleted.is_err_and(|error| error.code() == kevel_model::Code::DeadlineExceeded);
        if silent && !self.shims.answers(shim).await {
            drop(ending);
            return self.shims.kill_shim(shim).await;
        }
        self.shims.release(shim).await;
    }
}

fn launch(tasks: &TaskManager, scope: &Scope, container: &Container, create: &Create) -> Launch {
    let join = match (create.address.as_str(), container.sandbox.as_str()) {
        ("", "") => Join::Alone,
        ("", sandbox) if sandbox == container.id => Join::Alone,
        ("", sandbox) => Join::Sandbox(sandbox.to_owned()),
        (address, sandbox) => Join::at(address, create.version, sandbox.to_owned()),
    };
    Launch {
        namespace: scope.namespace.clone(),
        id: container.id.clone(),
        role: Role::Task,
        dirs: tasks.dirs.clone(),
        spec: container.spec.as_ref().map(|spec| spec.value.clone()),
        options: container.runtime.options.clone(),
        runtime: container.runtime.name.clone(),
        runtime_path: create.runtime_path.clone(),
        join,
    }
}
