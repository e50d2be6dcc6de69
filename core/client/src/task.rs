//! Tasks behind a socket.

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    task::{Backend, Checkpoint, Create, Deleted, Exec, Exit, Kill, Metric, Pid, Process, Tasks, Update},
};
use kevel_model::{Descriptor, Error, Filters, Result};
use kevel_proto::containerd::services::tasks::v1::{
    CheckpointTaskRequest, CloseIoRequest, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest,
    ExecProcessRequest, GetRequest, KillRequest, ListPidsRequest, ListTasksRequest, MetricsRequest, PauseTaskRequest,
    ResizePtyRequest, ResumeTaskRequest, StartRequest, UpdateTaskRequest, WaitRequest, tasks_client::TasksClient,
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{any_read, any_wire, task, time_read, types},
    remote::{answer, client, request},
};

/// The task service behind a socket.
pub fn tasks(remote: &Remote) -> Tasks {
    Tasks::new(remote.target(), RemoteTasks(remote.clone()))
}

struct RemoteTasks(Remote);

impl RemoteTasks {
    fn client(&self) -> TasksClient<Channel> {
        client!(TasksClient<Channel>, self.0)
    }
}

#[async_trait]
impl Backend for RemoteTasks {
    async fn create(&self, scope: &Scope, create: Create) -> Result<u32> {
        let message = CreateTaskRequest {
            container_id: create.container_id,
            rootfs: types::mounts_wire(create.rootfs),
            stdin: create.stdio.stdin,
            stdout: create.stdio.stdout,
            stderr: create.stdio.stderr,
            terminal: create.stdio.terminal,
            checkpoint: create.checkpoint.map(types::descriptor_wire),
            options: create.options.map(any_wire),
            runtime_path: create.runtime_path,
            task_api_address: create.address,
            task_api_version: create.version,
        };
        Ok(answer(self.client().create(request(scope, message)?).await)?.pid)
    }

    async fn start(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<u32> {
        let message = StartRequest { container_id: container_id.to_owned(), exec_id: exec_id.to_owned() };
        Ok(answer(self.client().start(request(scope, message)?).await)?.pid)
    }

    async fn delete(&self, scope: &Scope, container_id: &str) -> Result<Deleted> {
        let message = DeleteTaskRequest { container_id: container_id.to_owned() };
        task::deleted_read(answer(self.client().delete(request(scope, message)?).await)?)
    }

    async fn delete_process(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Deleted> {
        let message = DeleteProcessRequest { container_id: container_id.to_owned(), exec_id: exec_id.to_owned() };
        task::deleted_read(answer(self.client().delete_process(request(scope, message)?).await)?)
    }

    async fn get(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Process> {
        let message = GetRequest { container_id: container_id.to_owned(), exec_id: exec_id.to_owned() };
        task::read(answer(self.client().get(request(scope, message)?).await)?.process)
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Process>> {
        // The request has room for one filter; more are asked for one after the other.
        let [filter] = filters.sources() else {
            if filters.sources().is_empty() {
                return self.list_by(scope, String::new()).await;
            }
            return Err(Error::invalid_argument("tasks can be listed by one filter only"));
        };
        self.list_by(scope, filter.clone()).await
    }

    async fn kill(&self, scope: &Scope, kill: Kill) -> Result<()> {
        let Kill { container_id, exec_id, signal, all } = kill;
        let message = KillRequest { container_id, exec_id, signal, all };
        answer(self.client().kill(request(scope, message)?).await)
    }

    async fn exec(&self, scope: &Scope, exec: Exec) -> Result<()> {
        let message = ExecProcessRequest {
            container_id: exec.container_id,
            stdin: exec.stdio.stdin,
            stdout: exec.stdio.stdout,
            stderr: exec.stdio.stderr,
            terminal: exec.stdio.terminal,
            spec: exec.spec.map(any_wire),
            exec_id: exec.exec_id,
        };
        answer(self.client().exec(request(scope, message)?).await)
    }

    async fn resize(&self, scope: &Scope, container_id: &str, exec_id: &str, width: u32, height: u32) -> Result<()> {
        let (container_id, exec_id) = (container_id.to_owned(), exec_id.to_owned());
        let message = ResizePtyRequest { container_id, exec_id, width, height };
        answer(self.client().resize_pty(request(scope, message)?).await)
    }

    async fn close_io(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<()> {
        let (container_id, exec_id) = (container_id.to_owned(), exec_id.to_owned());
        answer(self.client().close_io(request(scope, CloseIoRequest { container_id, exec_id, stdin: true })?).await)
    }

    async fn pause(&self, scope: &Scope, container_id: &str) -> Result<()> {
        let message = PauseTaskRequest { container_id: container_id.to_owned() };
        answer(self.client().pause(request(scope, message)?).await)
    }

    async fn resume(&self, scope: &Scope, container_id: &str) -> Result<()> {
        let message = ResumeTaskRequest { container_id: container_id.to_owned() };
        answer(self.client().resume(request(scope, message)?).await)
    }

    async fn pids(&self, scope: &Scope, container_id: &str) -> Result<Vec<Pid>> {
        let message = ListPidsRequest { container_id: container_id.to_owned() };
        let found = answer(self.client().list_pids(request(scope, message)?).await)?.processes;
        Ok(found.into_iter().map(|found| Pid { pid: found.pid, info: found.info.map(any_read) }).collect())
    }

    async fn checkpoint(&self, scope: &Scope, checkpoint: Checkpoint) -> Result<Vec<Descriptor>> {
        let message = CheckpointTaskRequest {
            container_id: checkpoint.container_id,
            parent_checkpoint: String::new(),
            options: checkpoint.options.map(any_wire),
        };
        let made = answer(self.client().checkpoint(request(scope, message)?).await)?.descriptors;
        made.into_iter().map(|made| types::descriptor_read("descriptors", Some(made))).collect()
    }

    async fn update(&self, scope: &Scope, update: Update) -> Result<()> {
        let Update { container_id, resources, annotations } = update;
        let message = UpdateTaskRequest { container_id, resources: resources.map(any_wire), annotations };
        answer(self.client().update(request(scope, message)?).await)
    }

    async fn metrics(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Metric>> {
        let message = MetricsRequest { filters: filters.sources().to_vec() };
        let found = answer(self.client().metrics(request(scope, message)?).await)?.metrics;
        found.into_iter().map(types::metric_read).collect()
    }

    async fn wait(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Exit> {
        let message = WaitRequest { container_id: container_id.to_owned(), exec_id: exec_id.to_owned() };
        let exit = answer(self.client().wait(request(scope, message)?).await)?;
        Ok(Exit { status: exit.exit_status, at: time_read("exited_at", exit.exited_at)? })
    }
}

impl RemoteTasks {
    async fn list_by(&self, scope: &Scope, filter: String) -> Result<Vec<Process>> {
        let found = answer(self.client().list(request(scope, ListTasksRequest { filter })?).await)?.tasks;
        found.into_iter().map(|found| task::read(Some(found))).collect()
    }
}
