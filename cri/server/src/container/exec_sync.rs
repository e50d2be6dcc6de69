//! ExecSync.

use std::{sync::Arc, time::Duration};

use kevel_contract::task::{Exec, Exit, Kill, Stdio};
use kevel_cri_logs::{CAPTURE_LIMIT, Fifos, capture};
use kevel_model::{Any, Error, Result};
use kevel_proto::{
    any::PROCESS,
    runtime::v1::{ContainerState, ExecSyncRequest, ExecSyncResponse},
};
use tokio::task::JoinHandle;

use super::log_error;
use crate::{
    files::{self, blocking},
    identity,
    server::Server,
};

/// How long output may come after the command ended, unless the configuration says otherwise.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a killed command may take to end.
const KILLED: Duration = Duration::from_secs(10);
/// No command runs longer: a year.
const LONGEST: u64 = 366 * 24 * 3600;

impl Server {
    /// Runs a command in a container and answers what it printed, 16 MiB of each stream at most. A `timeout` of 0
    /// seconds is none. What was begun is cleaned up even when the caller hangs up.
    pub(crate) async fn exec_sync(self: &Arc<Self>, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        let container = self.index.container(&request.container_id)?;
        let id = container.record.id.clone();
        if request.cmd.is_empty() {
            return Err(Error::invalid_argument("cmd: empty"));
        }
        if request.timeout < 0 {
            return Err(Error::invalid_argument(format!("timeout: {} is negative", request.timeout)));
        }
        if container.state.cri() != ContainerState::ContainerRunning {
            return Err(Error::failed_precondition(format!("container {id} is not running")));
        }
        let limit = match u64::try_from(request.timeout).unwrap_or(0) {
            0 => LONGEST,
            seconds => seconds.min(LONGEST),
        };
        let (server, limit) = (self.clone(), Duration::from_secs(limit));
        let task = tokio::spawn(async move { run(&server, &id, &request.cmd, limit).await });
        task.await.map_err(|error| Error::internal("executing a command panicked").with_source(error))?
    }

    fn drain_timeout(&self) -> Duration {
        let text = self.settings.config.drain_exec_sync_io_timeout.trim();
        let seconds = text.strip_suffix('s').and_then(|number| number.parse::<u64>().ok());
        seconds.filter(|seconds| *seconds > 0).map_or(DRAIN, Duration::from_secs)
    }
}

async fn run(server: &Arc<Server>, id: &str, cmd: &[String], limit: Duration) -> Result<ExecSyncResponse> {
    let exec_id = identity::new_id()?;
    let process = process(server, id, cmd, false).await?;
    let (dir, name) = (server.settings.files.container_state(id), exec_id.clone());
    let fifos = blocking(move || {
        files::make_dir(&dir)?;
        Ok(Fifos::create(&dir, &name, false, false))
    });
    let failed = |error| log_error(format!("making pipes for a command in {id}"), error);
    let fifos = fifos.await?.map_err(failed)?;
    let done = execute(server, id, &exec_id, process, &fifos, limit).await;
    let removed = server.tasks.delete_process(&server.scope, id, &exec_id).await;
    if let Err(error) = removed
        && !error.is_not_found()
    {
        tracing::debug!(container = id, error = error.chain(), "removing a command");
    }
    let _ = blocking(move || Ok(fifos.remove())).await;
    done
}

/// The container's own process with other arguments.
pub(super) async fn process(server: &Server, id: &str, cmd: &[String], tty: bool) -> Result<Any> {
    let entry = server.containers.get(&server.scope, id).await?;
    let spec = entry.spec.ok_or_else(|| Error::data_loss(format!("container {id} has no spec")))?;
    let spec: serde_json::Value = serde_json::from_slice(&spec.value)
        .map_err(|error| Error::data_loss(format!("spec of container {id}")).with_source(error))?;
    Ok(Any::new(PROCESS, kevel_cri_spec::exec(&spec, cmd, tty)?.to_string()))
}

async fn execute(
    server: &Arc<Server>,
    id: &str,
    exec_id: &str,
    process: Any,
    fifos: &Fifos,
    limit: Duration,
) -> Result<ExecSyncResponse> {
    let pipes = fifos.open().map_err(|error| log_error(format!("opening pipes of a command in {id}"), error))?;
    let stdio = Stdio { stdout: fifos.stdout(), stderr: fifos.stderr(), ..Stdio::default() };
    let stdout = tokio::spawn(capture(pipes.stdout, CAPTURE_LIMIT));
    let stderr = pipes.stderr.map(|stderr| tokio::spawn(capture(stderr, CAPTURE_LIMIT)));
    let streams = Streams { stdout, stderr };
    let exec = Exec { container_id: id.to_owned(), exec_id: exec_id.to_owned(), stdio, spec: Some(process) };
    server.bounded("adding a command", server.tasks.exec(&server.scope, exec)).await?;
    server.bounded("starting a command", server.tasks.start(&server.scope, id, exec_id)).await?;
    drop(pipes.keepers); // the shim has its ends now: the streams end when it closes them
    let exit = match tokio::time::timeout(limit, server.tasks.wait(&server.scope, id, exec_id)).await {
        Ok(exit) => exit?,
        Err(_) => {
            kill(server, id, exec_id).await;
            return Err(Error::deadline_exceeded(format!(
                "command {exec_id} in container {id} timed out after {limit:?}"
            )));
        }
    };
    streams.collect(server.drain_timeout(), exit).await
}

async fn kill(server: &Server, id: &str, exec_id: &str) {
    let kill = Kill { container_id: id.to_owned(), exec_id: exec_id.to_owned(), signal: 9, all: false };
    if let Err(error) = server.tasks.kill(&server.scope, kill).await {
        tracing::warn!(container = id, error = error.chain(), "killing a command that timed out");
    }
    let _ = tokio::time::timeout(KILLED, server.tasks.wait(&server.scope, id, exec_id)).await;
}

type Capture = JoinHandle<std::io::Result<kevel_cri_logs::Captured>>;

/// What a command prints; nobody reads any more when it is dropped.
struct Streams {
    stdout: Capture,
    stderr: Option<Capture>,
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stdout.abort();
        self.stderr.iter().for_each(JoinHandle::abort);
    }
}

impl Streams {
    async fn collect(mut self, patience: Duration, exit: Exit) -> Result<ExecSyncResponse> {
        let until = tokio::time::Instant::now() + patience;
        let read = async |capture: &mut Capture| -> Result<Vec<u8>> {
            let late = |_| Error::deadline_exceeded(format!("output did not end within {patience:?} of the command"));
            let read = tokio::time::timeout_at(until, capture).await.map_err(late)?;
            let read = read.map_err(|error| Error::internal("reading output panicked").with_source(error))?;
            Ok(read.map_err(|error| Error::io("reading output", error))?.data)
        };
        let stdout = read(&mut self.stdout).await?;
        let stderr = match self.stderr.as_mut() {
            Some(stderr) => read(stderr).await?,
            None => Vec::new(),
        };
        let exit_code = i32::try_from(exit.status).unwrap_or(i32::MAX);
        Ok(ExecSyncResponse { stdout, stderr, exit_code })
    }
}
