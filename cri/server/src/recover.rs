//! From what is on disk to what is in memory, when the daemon starts: pods and containers that run are followed again,
//! what was half made is undone, what ended meanwhile has ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::join_all;
use kevel_contract::{container, sandbox, task};
use kevel_cri_logs::{Fifos, Io, Log};
use kevel_model::{Filters, Result};
use tokio::sync::watch;

use crate::{
    container::monitor::UNKNOWN,
    files::{self, Files, blocking},
    identity,
    index::{Container, Pod},
    intent::{self, Intent},
    record::{CONTAINER, ContainerRecord, ContainerState, KIND, Phase, SANDBOX, SandboxRecord, read_state},
    server::{Life, Server},
};

/// What the start of the daemon waits for. What takes longer, because a shim does not answer, goes on while the daemon
/// serves: lists show what was last known, and whoever wants to change a pod waits for that pod alone.
const BUDGET: Duration = Duration::from_millis(500);

/// Between two looks at a container whose shim did not answer.
const AGAIN: Duration = Duration::from_secs(2);

/// What was found of one pod.
#[derive(Default)]
struct Found {
    pod: Option<SandboxRecord>,
    containers: Vec<FoundContainer>,
}

/// What was found of one container.
struct FoundContainer {
    /// None when it was never made, or half removed: the rest of it goes.
    record: Option<ContainerRecord>,
    id: String,
    state: ContainerState,
    intent: Option<Intent>,
}

impl Server {
    /// Reads everything into memory and follows it. Call it once, before the first request.
    ///
    /// # Errors
    /// When the stores do not answer. What is wrong with one pod or container is logged and costs only that one.
    pub async fn recover(self: &Arc<Self>) -> Result<()> {
        let dir = self.settings.files.temporary();
        blocking(move || Ok(kevel_mount::clean_temp_mounts(&dir)?)).await?;
        let labelled = |kind: &str| Filters::parse(&[format!("labels.\"{KIND}\"=={kind}")]);
        let sandboxes = self.sandboxes.list(&self.scope, &labelled(SANDBOX)?).await?;
        let containers = self.containers.list(&self.scope, &labelled(CONTAINER)?).await?;
        let found = self.found(sandboxes, containers).await?;
        self.clean_orphans().await;
        // Not awaited: a snapshotter behind a socket that is not there must not keep the node from starting.
        tokio::spawn(self.clone().clean_image_volumes());
        self.end_strays(&found).await;
        let pods = found.len();
        let mut tasks = tokio::task::JoinSet::new();
        for (id, found) in found {
            // Taken before the first request, so that nobody changes a pod before it has been looked at.
            let alone = self.pods.alone(&id).await;
            let server = self.clone();
            let work = || async move {
                let _alone = alone;
                server.take_up(found).await;
                Ok(String::new())
            };
            let (operations, key) = (self.operations.clone(), format!("take up pod sandbox {id}"));
            tasks.spawn(async move { operations.run(key, Vec::new(), work).await });
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(BUDGET, all).await.is_ok();
        tasks.detach_all();
        tracing::info!(pods, in_time, "recovered");
        Ok(())
    }

    /// Sorts records by pod and puts what they say into the index.
    async fn found(
        &self,
        sandboxes: Vec<sandbox::Sandbox>,
        containers: Vec<container::Container>,
    ) -> Result<BTreeMap<String, Found>> {
        let mut all = BTreeMap::<String, Found>::new();
        for sandbox in sandboxes {
            match SandboxRecord::unpack(&sandbox) {
                Ok(record) => {
                    self.settings.selinux.reserve(&record.labels);
                    self.index.put_pod(Pod::new(record.clone()));
                    all.entry(sandbox.id).or_default().pod = Some(record);
                }
                Err(error) => {
                    tracing::warn!(sandbox = sandbox.id, error = error.chain(), "sandbox is not the CRI's");
                }
            }
        }
        let files = self.settings.files.clone();
        let containers =
            blocking(move || Ok(containers.iter().map(|one| found_container(&files, one)).collect::<Vec<_>>()));
        for (pod, container) in containers.await?.into_iter().flatten() {
            if let Some(record) = &container.record {
                self.settings.selinux.reserve(&record.labels);
                let (record, state) = (Arc::new(record.clone()), Arc::new(container.state.clone()));
                self.index.put_container(Container { record, state });
            }
            all.entry(pod).or_default().containers.push(container);
        }
        Ok(all)
    }

    /// CNI plugins that the daemon before was running for pods that are now undone or stopped would work against that.
    async fn end_strays(&self, found: &BTreeMap<String, Found>) {
        let half = |found: &Found| found.pod.as_ref().is_some_and(|pod| pod.phase == Phase::Creating);
        let files = &self.settings.files;
        let begun = |id: &str| intent::read(&files.sandbox_state(id)).is_some();
        let pods: BTreeSet<String> =
            found.iter().filter(|(id, found)| half(found) || begun(id)).map(|(id, _)| id.clone()).collect();
        if pods.is_empty() {
            return; // nothing was cut short, and nobody looks at every process of the node
        }
        let _ = blocking(move || Ok(kevel_cri_network::stray::end(&pods))).await;
    }

    /// The caller has locked the pod.
    async fn take_up(self: Arc<Self>, found: Found) {
        let containers = join_all(found.containers.into_iter().map(|one| self.take_up_container(one)));
        let pod = async {
            if let Some(record) = &found.pod {
                self.take_up_pod(record).await;
            }
        };
        tokio::join!(pod, containers);
        let Some(record) = found.pod else { return };
        match intent::read(&self.settings.files.sandbox_state(&record.id)) {
            _ if record.phase == Phase::Creating => self.finish(&record.id, Intent::Remove),
            Some(intent) => self.finish(&record.id, intent),
            None => {}
        }
    }

    async fn take_up_pod(self: &Arc<Self>, record: &SandboxRecord) {
        match record.phase {
            // What is left of it is removed in the background.
            Phase::Creating => self.end_sandbox(&record.id, record.created_at),
            Phase::Stopped => {}
            Phase::Ready => self.readopt_pod(record).await,
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
    pub(crate) async fn undo_pod(&self, record: &SandboxRecord) -> Result<()> {
        match self.controller(&record.sandboxer)?.shutdown(&self.scope, &record.id).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        self.disconnect(record).await?;
        let (dirs, id) = (self.settings.files.clone(), record.id.clone());
        blocking(move || files::remove_sandbox(&dirs, &id)).await?;
        self.sandboxes.delete(&self.scope, &record.id).await?;
        self.index.remove_pod(&record.id);
        self.settings.selinux.release(&record.labels);
        Ok(())
    }

    async fn take_up_container(self: &Arc<Self>, found: FoundContainer) {
        let FoundContainer { record, id, state, intent } = found;
        let done = match record {
            Some(_) => self.readopt_container(&id, state).await,
            None => self.erase_record(&id).await,
        };
        if let Err(error) = done {
            tracing::warn!(container = id, error = error.chain(), "container is not recovered");
        }
        let Some(intent) = intent else { return };
        let server = self.clone();
        tokio::spawn(async move {
            tracing::info!(container = id, ?intent, "going on with what was begun");
            let done = match intent {
                Intent::Remove => server.remove_container(&id).await,
                Intent::Stop(at) => {
                    let left = at.saturating_sub(identity::now()).max(0);
                    let seconds = left / 1_000_000_000 + i64::from(left % 1_000_000_000 != 0);
                    server.stop_container(&id, seconds).await
                }
            };
            if let Err(status) = done {
                tracing::warn!(container = id, error = status.message(), "what was begun is not finished");
            }
        });
    }

    async fn readopt_container(self: &Arc<Self>, id: &str, state: ContainerState) -> Result<()> {
        self.remove_partial_archive(id).await;
        if state.finished_at != 0 {
            return self.clear_up(id, &state).await;
        }
        match self.tasks.get(&self.scope, id, "").await {
            Ok(process) if process.state == task::State::Running || process.state == task::State::Paused => {
                self.thaw(id).await; // held still for a checkpoint that was cut short
                self.follow(id, process.pid).await
            }
            // Created and not started: StartContainer was cut short before its answer.
            Ok(process) if process.state == task::State::Created => self.unstart(id).await,
            Ok(process) => {
                self.collect_output(id).await;
                let at = process.exited_at.unwrap_or_else(SystemTime::now);
                self.over(id, state.started_at == 0, task::Exit { status: process.exit_status, at }).await
            }
            Err(error) if error.is_not_found() && state.started_at == 0 && !state.unknown => Ok(()),
            Err(error) if error.is_not_found() => {
                self.over(id, false, task::Exit { status: UNKNOWN, at: SystemTime::now() }).await
            }
            // Its shim does not answer now; whoever waits will be told when it does, or when it is given up.
            Err(error) => {
                self.live(id, Life { io: None, ended: watch::Sender::new(false) });
                self.set_state(id, |state| state.unknown = true).await?;
                self.monitor(id.to_owned());
                self.look_again(id);
                Err(error)
            }
        }
    }

    /// Asks for a container whose shim did not answer until it does.
    fn look_again(self: &Arc<Self>, id: &str) {
        let (server, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(AGAIN).await;
                // Without one it has ended, or was removed.
                let Some(life) = server.life(&id) else { return };
                match server.tasks.get(&server.scope, &id, "").await {
                    Ok(process) if process.state == task::State::Running || process.state == task::State::Paused => {
                        server.thaw(&id).await;
                        let io = server.reattach(&id).await.ok();
                        // Whoever waits for the end waits for the same one.
                        server.live(&id, Life { io, ended: life.ended.clone() });
                        let known = server.set_state(&id, |state| (state.pid, state.unknown) = (process.pid, false));
                        if let Err(error) = known.await {
                            tracing::warn!(container = id, error = error.chain(), "state is not on disk");
                        }
                        return;
                    }
                    Err(error) if error.is_not_found() => return, // who waits for its end is told
                    _ => {}
                }
            }
        });
    }

    /// A container whose end is on record. The daemon may have been killed before the rest of its output was written.
    async fn clear_up(self: &Arc<Self>, id: &str, state: &ContainerState) -> Result<()> {
        match self.tasks.get(&self.scope, id, "").await {
            Ok(_) => {
                self.collect_output(id).await;
                let status = u32::try_from(state.exit_code).unwrap_or(UNKNOWN);
                let finished = Duration::from_nanos(u64::try_from(state.finished_at).unwrap_or(0));
                self.ended(id, task::Exit { status, at: SystemTime::UNIX_EPOCH + finished }).await;
                Ok(())
            }
            Err(error) if error.is_not_found() => self.delete_task(id).await,
            Err(error) => Err(error),
        }
    }

    /// Reads the output again, from where the daemon before stopped: meanwhile it waits in the pipes.
    async fn collect_output(&self, id: &str) {
        let io = match self.reattach(id).await {
            Ok(io) => Some(io),
            Err(error) => {
                tracing::warn!(container = id, error = error.chain(), "its output is lost");
                None
            }
        };
        self.live(id, Life { io, ended: watch::Sender::new(false) });
    }

    /// Reads the output again and waits for the end.
    async fn follow(self: &Arc<Self>, id: &str, pid: u32) -> Result<()> {
        self.collect_output(id).await;
        self.meter.follow(id, pid).await;
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

/// Which pod a container of the store belongs to, and how it was left. Blocks.
fn found_container(files: &Files, entry: &container::Container) -> Option<(String, FoundContainer)> {
    let id = entry.id.clone();
    let record = match ContainerRecord::unpack(entry) {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(container = id, error = error.chain(), "container is not the CRI's");
            return None;
        }
    };
    let pod = record.sandbox_id.clone();
    let intent = intent::read(&files.container_state(&id));
    let state = read_state(&files.status(&id)).unwrap_or_else(|error| {
        tracing::warn!(container = id, error = error.chain(), "its state is unknown");
        Some(ContainerState { unknown: true, started_at: record.created_at, ..ContainerState::default() })
    });
    // The state is written before the record says that it is complete, and removed before the record is.
    let whole = record.complete && state.is_some();
    let (record, state) = (whole.then_some(record), state.unwrap_or_default());
    Some((pod, FoundContainer { intent: intent.filter(|_| whole), record, id, state }))
}
