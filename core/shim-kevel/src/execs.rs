//! Processes that are added to a container.

use std::{fs, sync::Arc};

use kevel_proto::{any::PROCESS, containerd::v1::types::Status, shim::task::ExecProcessRequest};
use kevel_shim::write_small;

use crate::{
    container::{Container, lock, name},
    device,
    error::{Error, Result},
    io::{self, Wanted},
    process::Process,
    runtime::Call,
};

/// More processes than anybody adds to one container; the next is refused.
const EXECS: usize = 4096;

impl Container {
    /// Adds a process; it is started later.
    pub(crate) fn add_exec(&self, request: &ExecProcessRequest) -> Result<()> {
        let id = &request.exec_id;
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if id.is_empty() || id.len() > 128 || !id.chars().all(fine) || id.starts_with('.') {
            return Err(Error::Invalid(format!("exec_id: {id:?} is no id")));
        }
        let spec = request.spec.as_ref().ok_or_else(|| Error::Invalid("spec: missing".to_owned()))?;
        if spec.type_url != PROCESS {
            return Err(Error::Invalid(format!("spec: {:?} is not {PROCESS}", spec.type_url)));
        }
        if self.first.status() == Status::Stopped || self.first.pid() == 0 {
            return Err(Error::State(format!("container {} is {}", self.id, name(self.first.status()))));
        }
        let mut process: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&spec.value).map_err(|error| Error::Invalid(format!("spec: {error}")))?;
        process.insert("terminal".to_owned(), request.terminal.into());
        let process = serde_json::to_vec(&process).map_err(|error| Error::Invalid(format!("spec: {error}")))?;
        let wanted = Wanted {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let mut execs = lock(&self.execs);
        if execs.contains_key(id) {
            return Err(Error::Exists(format!("process {id} of container {}", self.id)));
        }
        if execs.len() >= EXECS {
            return Err(Error::State(format!("container {} has {EXECS} processes that were not deleted", self.id)));
        }
        write_small(&self.exec_file(id, "process"), &process)?;
        execs.insert(id.clone(), Arc::new(Process::new(id.clone(), wanted)));
        Ok(())
    }

    /// Starts it; the caller has its turn.
    pub(crate) async fn start_exec(self: &Arc<Self>, process: &Arc<Process>) -> Result<u32> {
        let id = &process.exec_id;
        if process.status() != Status::Created || process.pid() != 0 {
            return Err(Error::State(format!("process {id} is {}", name(process.status()))));
        }
        if !matches!(self.first.status(), Status::Running | Status::Created) {
            let state = name(self.first.status());
            return Err(Error::State(format!("container {} is {state}, and starts no process", self.id)));
        }
        let mut opened = io::open(&process.wanted, &self.streams_for(id)).await?;
        let pid_file = self.exec_file(id, "pid");
        let log = format!(".{id}.log");
        let mut call = Call::new("exec").path("--process", &self.exec_file(id, "process"));
        call = call.path("--pid-file", &pid_file).arg("--detach").log(log.clone());
        if let Some(socket) = opened.socket() {
            call = call.path("--console-socket", &socket.path());
        }
        let held = self.runtime.hold();
        let ran = self.runtime.run(call.ends(opened.take_ends()).arg(&self.id)).await;
        let _ = fs::remove_file(self.bundle.join(log)); // not every runtime writes one
        if let Err(error) = ran {
            opened.abandon().await;
            return Err(error);
        }
        let child = self.adopt(&pid_file)?;
        let _ = fs::remove_file(&pid_file); // goes with the bundle
        drop(held);
        let pid = child.pid;
        tokio::spawn(self.clone().follow(process.clone(), child));
        let streams = match opened.carry().await {
            Ok(streams) => streams,
            Err(error) => {
                let _ = device::kill(pid, 9); // it has ended
                return Err(error);
            }
        };
        process.made(pid, streams);
        process.set_status(Status::Running);
        Ok(pid)
    }

    /// Removes one that has ended, or was never started.
    pub(crate) async fn delete_exec(&self, process: &Process) -> Result<()> {
        let turn = process.turn.lock().await;
        match process.status() {
            Status::Stopped => process.finish_streams().await,
            Status::Created => {}
            status => return Err(Error::State(format!("cannot delete a {} process", name(status)))),
        }
        lock(&self.execs).remove(&process.exec_id);
        let _ = fs::remove_file(self.exec_file(&process.exec_id, "process")); // goes with the bundle
        drop(turn);
        Ok(())
    }

    fn exec_file(&self, id: &str, kind: &str) -> std::path::PathBuf {
        self.bundle.join(format!("exec-{id}.{kind}"))
    }
}
