//! The calls that go to one process of one task, and nothing else: a message there, a message back.

use kevel_contract::{
    Scope,
    task::{Exec, Exit, Kill, Pid, Process, Update},
};
use kevel_model::{Code, check_identifier};
use kevel_proto::shim::task::{
    CloseIoRequest, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest,
    ResumeRequest, StartRequest, StartResponse, StateRequest, StateResponse, UpdateTaskRequest, WaitRequest,
    WaitResponse, method,
};
use prost::Message;

use super::{TaskManager, restore};
use crate::{Error, Result, wire};

const SIGKILL: u32 = 9;

impl TaskManager {
    /// A call that is answered by nothing.
    async fn tell<Req>(&self, scope: &Scope, id: &str, method: &'static str, request: &Req) -> Result<()>
    where
        Req: Message + Clone + 'static,
    {
        let shim = self.shim(scope, id).await?;
        self.shims.call::<_, ()>(&shim, method, request, Some(self.shims.timeouts().quick)).await
    }

    pub(super) async fn start_process(&self, scope: &Scope, id: &str, exec_id: &str) -> Result<u32> {
        let shim = self.shim(scope, id).await?;
        let request = StartRequest { id: id.into(), exec_id: exec_id.into() };
        let limit = self.shims.timeouts().work;
        let response: StartResponse = self.shims.call(&shim, method::START, &request, Some(limit)).await?;
        if exec_id.is_empty() {
            shim.set_init(response.pid); // a restored task has a process only now
            restore::discard(&shim.bundle).await;
        }
        Ok(response.pid)
    }

    pub(super) async fn state(&self, scope: &Scope, id: &str, exec_id: &str) -> Result<Process> {
        let shim = self.shim(scope, id).await?;
        let request = StateRequest { id: id.into(), exec_id: exec_id.into() };
        let limit = self.shims.timeouts().state;
        let state: StateResponse = self.shims.call(&shim, method::STATE, &request, Some(limit)).await?;
        Ok(wire::process(id, state))
    }

    /// Sends a signal. SIGKILL for a whole container is a promise that it ends, with force if its shim does not do it.
    pub(super) async fn kill_process(&self, scope: &Scope, kill: Kill) -> Result<()> {
        let Kill { container_id, exec_id, signal, all } = kill;
        if signal == SIGKILL && exec_id.is_empty() {
            return self.kill_task(scope, &container_id, all).await;
        }
        let request = KillRequest { id: container_id.clone(), exec_id, signal, all };
        self.tell(scope, &container_id, method::KILL, &request).await
    }

    async fn kill_task(&self, scope: &Scope, id: &str, all: bool) -> Result<()> {
        let shim = self.shim(scope, id).await?;
        let request = KillRequest { id: id.to_owned(), exec_id: String::new(), signal: SIGKILL, all };
        let limit = Some(self.shims.timeouts().kill);
        match self.shims.call::<_, ()>(&shim, method::KILL, &request, limit).await {
            Ok(()) => {
                self.shims.expect_end(&shim);
                Ok(())
            }
            // The shim hangs, or its runtime does or can't.
            Err(error) if matches!(error.code(), Code::DeadlineExceeded | Code::Unknown | Code::Internal) => {
                let (pid, error) = (shim.pid(), kevel_model::Error::from(error).chain());
                tracing::warn!(id, pid, error, "a shim did not take SIGKILL for its container");
                self.shims.force(&shim).await
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn add_exec(&self, scope: &Scope, exec: Exec) -> Result<()> {
        check_identifier(&exec.exec_id).map_err(|error| Error::Invalid(format!("exec_id: {error}")))?;
        let request = ExecProcessRequest {
            id: exec.container_id.clone(),
            exec_id: exec.exec_id,
            terminal: exec.stdio.terminal,
            stdin: exec.stdio.stdin,
            stdout: exec.stdio.stdout,
            stderr: exec.stdio.stderr,
            spec: exec.spec.map(wire::any),
        };
        self.tell(scope, &exec.container_id, method::EXEC, &request).await
    }

    pub(super) async fn resize_terminal(
        &self,
        scope: &Scope,
        (id, exec_id): (&str, &str),
        width: u32,
        height: u32,
    ) -> Result<()> {
        let request = ResizePtyRequest { id: id.into(), exec_id: exec_id.into(), width, height };
        self.tell(scope, id, method::RESIZE_PTY, &request).await
    }

    pub(super) async fn close_stdin(&self, scope: &Scope, id: &str, exec_id: &str) -> Result<()> {
        let request = CloseIoRequest { id: id.into(), exec_id: exec_id.into(), stdin: true };
        self.tell(scope, id, method::CLOSE_IO, &request).await
    }

    pub(super) async fn pause_task(&self, scope: &Scope, id: &str) -> Result<()> {
        self.tell(scope, id, method::PAUSE, &PauseRequest { id: id.into() }).await
    }

    pub(super) async fn resume_task(&self, scope: &Scope, id: &str) -> Result<()> {
        self.tell(scope, id, method::RESUME, &ResumeRequest { id: id.into() }).await
    }

    pub(super) async fn task_pids(&self, scope: &Scope, id: &str) -> Result<Vec<Pid>> {
        let shim = self.shim(scope, id).await?;
        let limit = self.shims.timeouts().quick;
        let request = PidsRequest { id: id.into() };
        let response: PidsResponse = self.shims.call(&shim, method::PIDS, &request, Some(limit)).await?;
        let pid = |process: kevel_proto::containerd::v1::types::ProcessInfo| Pid {
            pid: process.pid,
            info: process.info.map(wire::from_any),
        };
        Ok(response.processes.into_iter().map(pid).collect())
    }

    pub(super) async fn update_task(&self, scope: &Scope, update: Update) -> Result<()> {
        let Update { container_id, resources, annotations } = update;
        let request = UpdateTaskRequest { id: container_id.clone(), resources: resources.map(wire::any), annotations };
        self.tell(scope, &container_id, method::UPDATE, &request).await
    }

    /// Waits, without limit. When the shim dies meanwhile, the first process has ended with it.
    pub(super) async fn wait_process(&self, scope: &Scope, id: &str, exec_id: &str) -> Result<Exit> {
        let shim = self.shim(scope, id).await?;
        let request = WaitRequest { id: id.into(), exec_id: exec_id.into() };
        match self.shims.call::<_, WaitResponse>(&shim, method::WAIT, &request, None).await {
            Ok(response) => {
                let at = wire::time(response.exited_at).unwrap_or_else(std::time::SystemTime::now);
                Ok(Exit { status: response.exit_status, at })
            }
            Err(error @ Error::Gone { .. }) => {
                let deleted = self.shims.exit(&scope.namespace, id).ok_or(error)?;
                Ok(deleted.exit)
            }
            Err(error) => Err(error),
        }
    }
}
