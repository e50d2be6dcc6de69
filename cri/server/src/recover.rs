//! From what is on disk to what is in memory, when the daemon starts: pods and containers that run are followed again,
//! what was half made is undone, what ended meanwhile has ended.

use std::{sync::Arc, time::SystemTime};

use futures::{StreamExt as _, future::join_all, stream};
use kevel_contract::{container, sandbox, task};
use kevel_cri_logs::{Fifos, Io, Log};
use kevel_model::{Filters, Result};
use tokio::sync::watch;

use crate::{
    container::monitor::UNKNOWN,
    files::{self, blocking},
    identity,
    index::{Container, Pod},
    record::{CONTAINER, ContainerRecord, ContainerState, KIND, Phase, SANDBOX, SandboxRecord, read_state},
    server::{Life, Server},
};

/// How many pods or containers are looked at at once.
const AT_ONCE: usize = 32;

impl Server {
    /// Reads everything and follows it. Call it once, before the first request.
    ///
    /// # Errors
    /// When the stores do not answer. What is wrong with one pod or container is logged and costs only that one.
    pub async fn recover(self: &Arc<Self>) -> Result<()> {
        let dir = self.settings.files.temporary();
        blocking(move || Ok(kevel_mount::clean_temp_mounts(&dir)?)).await?;
        let labelled = |kind: &str| Filters::parse(&[format!("labels.\"{KIND}\"=={kind}")]);
        let sandboxes = self.sandboxes.list(&self.scope, &labelled(SANDBOX)?).await?;
        let containers = self.containers.list(&self.scope, &labelled(CONTAINER)?).await?;
        // Pods first, so that containers find theirs.
        let pods = stream::iter(sandboxes).map(|one| self.recover_pod(one));
        pods.buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
        let containers = stream::iter(containers).map(|one| self.recover_container(one));
        containers.buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
        self.clean_orphans().await;
        // Not awaited: a snapshotter behind a socket that is not there must not keep the node from starting.
        tokio::spawn(self.clone().clean_image_volumes());
        let now = self.index.snapshot();
        tracing::info!(pods = now.pods.size(), containers = now.containers.size(), "recovered");
        Ok(())
    }

    async fn recover_pod(self: &Arc<Self>, sandbox: sandbox::Sandbox) {
        let record = match SandboxRecord::unpack(&sandbox) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(sandbox = sandbox.id, error = error.chain(), "sandbox is not the CRI's");
                return;
            }
        };
        let id = record.id.clone();
        let phase = record.phase;
        self.index.put_pod(Pod::new(record.clone()));
        match phase {
            Phase::Creating => {
                if let Err(error) = self.undo_pod(&record).await {
                    tracing::warn!(sandbox = id, error = error.chain(), "half made sandbox is left");
                }
            }
            Phase::Stopped => {}
            Phase::Ready => self.readopt_pod(&record).await,
        }
    }

    async fn readopt_pod(self: &Arc<Self>, record: &SandboxRecord) {
        let ready = match self.controller(&record.sandboxer) {
            Ok(controller) => match controller.status(&self.scope, &record.id, false).await {
                Ok(status) => status.state == sandbox::READY,
                Err(error) => {
                    tracing::warn!(sandbox = record.id, error = error.chain(), "sandbox is not ready");
                    false
                }
            },
            Err(error) => {
                tracing::warn!(sandbox = record.id, error = error.chain(), "sandbox is not ready");
                false
            }
        };
        if ready { self.watch_sandbox(record.id.clone()) } else { self.end_sandbox(&record.id, identity::now()) }
    }

    /// What the undo of a failed RunPodSandbox would have done.
    async fn undo_pod(&self, record: &SandboxRecord) -> Result<()> {
        match self.controller(&record.sandboxer)?.shutdown(&self.scope, &record.id).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        self.disconnect(record).await?;
        let (dirs, id) = (self.settings.files.clone(), record.id.clone());
        blocking(move || files::remove_sandbox(&dirs, &id)).await?;
        self.sandboxes.delete(&self.scope, &record.id).await?;
        self.index.remove_pod(&record.id);
        Ok(())
    }

    async fn recover_container(self: &Arc<Self>, entry: container::Container) {
        let id = entry.id.clone();
        let done = match ContainerRecord::unpack(&entry) {
            Ok(record) if record.complete => self.readopt_container(record).await,
            Ok(_) => self.erase_record(&id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::warn!(container = id, error = error.chain(), "container is not recovered");
        }
    }

    async fn readopt_container(self: &Arc<Self>, record: ContainerRecord) -> Result<()> {
        let id = record.id.clone();
        let path = self.settings.files.status(&id);
        let state = blocking(move || read_state(&path)).await;
        let state = state.unwrap_or_else(|error| {
            tracing::warn!(container = id, error = error.chain(), "its state is unknown");
            Some(ContainerState { unknown: true, started_at: record.created_at, ..ContainerState::default() })
        });
        let state = state.unwrap_or_default();
        self.index.put_container(Container { record: Arc::new(record), state: Arc::new(state.clone()) });
        if state.finished_at != 0 {
            return self.delete_task(&id).await;
        }
        match self.tasks.get(&self.scope, &id, "").await {
            Ok(process) if process.state == task::State::Running || process.state == task::State::Paused => {
                self.follow(&id, process.pid).await
            }
            // Created and not started: StartContainer was cut short before its answer.
            Ok(process) if process.state == task::State::Created => self.unstart(&id).await,
            Ok(process) => {
                let at = process.exited_at.unwrap_or_else(SystemTime::now);
                self.over(&id, state.started_at == 0, task::Exit { status: process.exit_status, at }).await
            }
            Err(error) if error.is_not_found() && state.started_at == 0 && !state.unknown => Ok(()),
            Err(error) if error.is_not_found() => {
                self.over(&id, false, task::Exit { status: UNKNOWN, at: SystemTime::now() }).await
            }
            // Its shim does not answer now; whoever waits will be told when it does, or when it is given up.
            Err(error) => {
                self.live(&id, Life { io: None, ended: watch::Sender::new(false) });
                self.set_state(&id, |state| state.unknown = true).await?;
                self.monitor(id);
                Err(error)
            }
        }
    }

    /// Reads the output again and waits for the end.
    async fn follow(self: &Arc<Self>, id: &str, pid: u32) -> Result<()> {
        let io = match self.reattach(id).await {
            Ok(io) => Some(io),
            Err(error) => {
                tracing::warn!(container = id, error = error.chain(), "its output is lost");
                None
            }
        };
        self.live(id, Life { io, ended: watch::Sender::new(false) });
        self.set_state(id, |state| {
            (state.pid, state.unknown) = (pid, false);
            if state.started_at == 0 {
                state.started_at = identity::now();
            }
        })
        .await?;
        self.monitor(id.to_owned());
        Ok(())
    }

    async fn reattach(&self, id: &str) -> Result<Io> {
        let container = self.index.container(id)?;
        let config = &container.record.config;
        let failed = |error| crate::container::log_error(format!("attaching to the output of {id}"), error);
        let fifos = Fifos::at(&self.settings.files.container_state(id), id, config.stdin, config.tty);
        let log = container.record.log_path.as_str();
        let log = Log::open((!log.is_empty()).then(|| std::path::Path::new(log))).await.map_err(failed)?;
        let io = Io::start(fifos, log, &self.log_settings()).map_err(failed)?;
        io.connected().await.map_err(failed)?;
        Ok(io)
    }

    /// A task that never started goes; the container can be started as if nothing had happened.
    async fn unstart(&self, id: &str) -> Result<()> {
        let kill = task::Kill { container_id: id.to_owned(), signal: 9, all: true, ..Default::default() };
        let _ = self.tasks.kill(&self.scope, kill).await;
        self.delete_task(id).await
    }

    async fn over(self: &Arc<Self>, id: &str, never_started: bool, exit: task::Exit) -> Result<()> {
        if never_started {
            self.set_state(id, |state| state.started_at = identity::nanos(exit.at)).await?;
        }
        self.set_state(id, |state| state.unknown = false).await?;
        self.ended(id, exit).await;
        Ok(())
    }

    /// Directories that belong to nothing.
    async fn clean_orphans(&self) {
        let files = self.settings.files.clone();
        let now = self.index.snapshot();
        let (dirs, pods) = (files.clone(), now.pods.clone());
        let sandboxes = blocking(move || {
            for id in dirs.existing("sandboxes").into_iter().filter(|id| !pods.contains_key(id)) {
                files::remove_sandbox(&dirs, &id)?;
            }
            Ok(())
        });
        let containers = blocking(move || {
            for id in files.existing("containers").into_iter().filter(|id| !now.containers.contains_key(id)) {
                files::remove_dir(&files.container_state(&id))?;
                files::remove_dir(&files.container(&id))?;
            }
            Ok(())
        });
        for done in join_all([tokio::spawn(sandboxes), tokio::spawn(containers)]).await.into_iter().flatten() {
            if let Err(error) = done {
                tracing::warn!(error = error.chain(), "directory of nothing is left");
            }
        }
    }
}
