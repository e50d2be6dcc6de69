//! The task service.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use kevel_cgroup::Processes;
use kevel_proto::{
    any,
    containerd::{
        events::{TaskCheckpointed, TaskDelete, TaskExecAdded, TaskExecStarted, TaskPaused, TaskResumed, TaskStart},
        runc::v1::ProcessDetails,
        v1::types::{ProcessInfo, Status as State},
    },
    shim::task::{
        CheckpointTaskRequest, CloseIoRequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
        ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse,
        StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
};
use kevel_shim::{Shutdown, task::Tasks};
use kevel_ttrpc::Status;

use crate::{
    container::{Container, Host, blocking, lock},
    error::{Error, Result},
    stats,
};

/// The containers of one shim.
pub(crate) struct Service {
    host: Host,
    shutdown: Shutdown,
    containers: Mutex<BTreeMap<String, Slot>>,
}

/// A container's place in the table.
#[derive(Clone)]
enum Slot {
    /// It is being made, under this name and by nobody else.
    Making,
    /// It is there.
    There(Arc<Container>),
}

impl Service {
    pub(crate) fn new(host: Host, shutdown: Shutdown) -> Self {
        Self { host, shutdown, containers: Mutex::default() }
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        match lock(&self.containers).get(id) {
            Some(Slot::There(container)) => Ok(container.clone()),
            _ => Err(Error::NotFound(format!("container {id}"))),
        }
    }

    async fn made(&self, request: &CreateTaskRequest) -> Result<Arc<Container>> {
        let id = &request.id;
        if id.is_empty() {
            return Err(Error::Invalid("id: empty".to_owned()));
        }
        {
            let mut containers = lock(&self.containers);
            if containers.contains_key(id) {
                return Err(Error::Exists(format!("container {id}")));
            }
            containers.insert(id.clone(), Slot::Making);
        }
        let made = Container::create(&self.host, request).await;
        let mut containers = lock(&self.containers);
        match &made {
            Ok(container) => containers.insert(id.clone(), Slot::There(container.clone())),
            Err(_) => containers.remove(id),
        };
        made
    }

    async fn delete_container(&self, container: &Container) -> Result<DeleteResponse> {
        container.delete().await?;
        lock(&self.containers).remove(&container.id);
        let (pid, exit) = (container.first.pid(), container.first.exit());
        let (exit_status, exited_at) = (exit.map_or(0, |exit| exit.status), exit.map(|exit| exit.at.into()));
        let container_id = container.id.clone();
        let event = TaskDelete { container_id, pid, exit_status, exited_at, id: String::new() };
        self.host.events.publish("/tasks/delete", &event);
        Ok(DeleteResponse { pid, exit_status, exited_at })
    }
}

#[async_trait]
impl Tasks for Service {
    async fn state(&self, request: StateRequest) -> Result<StateResponse, Status> {
        let container = self.container(&request.id)?;
        let bundle = container.bundle.to_string_lossy();
        Ok(container.process(&request.exec_id)?.state(&container.id, &bundle))
    }

    async fn create(&self, request: CreateTaskRequest) -> Result<CreateTaskResponse, Status> {
        let pid = self.made(&request).await?.first.pid();
        Ok(CreateTaskResponse { pid })
    }

    async fn start(&self, request: StartRequest) -> Result<StartResponse, Status> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let _turn = process.turn.lock().await; // its end is told after this
        let container_id = request.id;
        if request.exec_id.is_empty() {
            let pid = container.start().await?;
            self.host.events.publish("/tasks/start", &TaskStart { container_id, pid });
            return Ok(StartResponse { pid });
        }
        let pid = container.start_exec(&process).await?;
        let event = TaskExecStarted { container_id, exec_id: request.exec_id, pid };
        self.host.events.publish("/tasks/exec-started", &event);
        Ok(StartResponse { pid })
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, Status> {
        let container = self.container(&request.id)?;
        if request.exec_id.is_empty() {
            return Ok(self.delete_container(&container).await?);
        }
        let process = container.process(&request.exec_id)?;
        container.delete_exec(&process).await?;
        let exit = process.exit();
        let (exit_status, exited_at) = (exit.map_or(0, |exit| exit.status), exit.map(|exit| exit.at.into()));
        Ok(DeleteResponse { pid: process.pid(), exit_status, exited_at })
    }

    async fn pids(&self, request: PidsRequest) -> Result<PidsResponse, Status> {
        let container = self.container(&request.id)?;
        if container.first.status() == State::Stopped || container.first.pid() == 0 {
            return Ok(PidsResponse::default());
        }
        let execs: BTreeMap<u32, String> =
            lock(&container.execs).values().map(|exec| (exec.pid(), exec.exec_id.clone())).collect();
        let info = |pid: u32| {
            let exec = execs.get(&pid).map(|id| any::pack(&ProcessDetails { exec_id: id.clone() }));
            ProcessInfo { pid, info: exec }
        };
        let place = container.place()?;
        Ok(PidsResponse { processes: Processes::of(&place).0.into_iter().map(info).collect() })
    }

    async fn pause(&self, request: PauseRequest) -> Result<(), Status> {
        self.container(&request.id)?.pause().await?;
        self.host.events.publish("/tasks/paused", &TaskPaused { container_id: request.id });
        Ok(())
    }

    async fn resume(&self, request: ResumeRequest) -> Result<(), Status> {
        self.container(&request.id)?.resume().await?;
        self.host.events.publish("/tasks/resumed", &TaskResumed { container_id: request.id });
        Ok(())
    }

    async fn checkpoint(&self, request: CheckpointTaskRequest) -> Result<(), Status> {
        self.container(&request.id)?.checkpoint(&request).await?;
        let event = TaskCheckpointed { container_id: request.id, checkpoint: request.path };
        self.host.events.publish("/tasks/checkpointed", &event);
        Ok(())
    }

    async fn kill(&self, request: KillRequest) -> Result<(), Status> {
        let container = self.container(&request.id)?;
        if request.exec_id.is_empty() {
            return Ok(container.kill(request.signal, request.all).await?);
        }
        Ok(container.process(&request.exec_id)?.signal(request.signal)?)
    }

    async fn exec(&self, request: ExecProcessRequest) -> Result<(), Status> {
        self.container(&request.id)?.add_exec(&request)?;
        let event = TaskExecAdded { container_id: request.id, exec_id: request.exec_id };
        self.host.events.publish("/tasks/exec-added", &event);
        Ok(())
    }

    async fn resize_pty(&self, request: ResizePtyRequest) -> Result<(), Status> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        Ok(process.resize(request.width, request.height)?)
    }

    async fn close_io(&self, request: CloseIoRequest) -> Result<(), Status> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_input();
        }
        Ok(())
    }

    async fn update(&self, request: UpdateTaskRequest) -> Result<(), Status> {
        Ok(self.container(&request.id)?.update(request.resources.as_ref()).await?)
    }

    async fn wait(&self, request: WaitRequest) -> Result<WaitResponse, Status> {
        let exit = self.container(&request.id)?.process(&request.exec_id)?.wait().await;
        Ok(WaitResponse { exit_status: exit.status, exited_at: Some(exit.at.into()) })
    }

    async fn stats(&self, request: StatsRequest) -> Result<StatsResponse, Status> {
        let place = self.container(&request.id)?.place()?;
        let stats = blocking(move || Ok(stats::read(&place))).await?;
        Ok(StatsResponse { stats: Some(stats) })
    }

    async fn connect(&self, request: ConnectRequest) -> Result<ConnectResponse, Status> {
        let task_pid = self.container(&request.id).map_or(0, |container| container.first.pid());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, version })
    }

    async fn shutdown(&self, _: ShutdownRequest) -> Result<(), Status> {
        if lock(&self.containers).is_empty() {
            self.shutdown.now();
        }
        Ok(())
    }
}
