//! StartContainer.

use std::{path::Path, sync::Arc};

use kevel_contract::task::{self, Stdio};
use kevel_cri_logs::{Fifos, Io, Log};
use kevel_model::{Any, Error, Result};
use kevel_mount::IdRange;
use kevel_proto::runtime::v1::{ContainerEventType, ContainerState};
use tokio::sync::watch;
use tonic::Status;

use super::{log_error, monitor::cgroup_path};
use crate::{
    answer::status,
    checkpoint::restore,
    config::Handler,
    counters::timed,
    files::{self, blocking},
    identity,
    index::{Container, Pod},
    operation::stage,
    server::{Life, Server},
    userns::Ids,
};

/// The exit code of a container that could not be started.
const NOT_STARTED: i32 = 128;

impl Server {
    /// Starts a container. One that runs already is no error.
    pub(crate) async fn start_container(self: &Arc<Self>, id: &str) -> Result<(), Status> {
        let container = self.index.container(id).map_err(|error| status(&error))?;
        let (server, id) = (self.clone(), container.record.id.clone());
        let key = format!("start container {id}");
        let work = || async move {
            stage("waiting for other work on the pod or container");
            let _shared = server.pods.share(&container.record.sandbox_id).await;
            let _alone = server.locks.alone(&id).await;
            start(&server, &id).await.map(|()| String::new())
        };
        self.operations.run(key, Vec::new(), work).await.map(drop)
    }
}

async fn start(server: &Arc<Server>, id: &str) -> Result<()> {
    let container = server.index.container(id)?;
    match container.state.cri() {
        ContainerState::ContainerCreated => {}
        ContainerState::ContainerRunning => return Ok(()),
        ContainerState::ContainerExited => {
            return Err(Error::failed_precondition(format!("container {id} has ended; it starts only once")));
        }
        ContainerState::ContainerUnknown => {
            return Err(Error::failed_precondition(format!("container {id}: its state is unknown")));
        }
    }
    let pod = server.index.pod(&container.record.sandbox_id)?;
    if !pod.ready {
        return Err(Error::failed_precondition(format!("pod sandbox {} is not running", pod.record.id)));
    }
    let timer = server.counters.container_start.with_label_values(&[server.runtime_of(&pod.record.handler)]);
    let started = match server.nri.start_container(id, server.subject(id)).await {
        Ok(()) => timed(&timer, run(server, &pod, &container)).await,
        Err(refused) => Err(refused),
    };
    match started {
        Ok(()) => {
            server.nri.post_start_container(id, server.subject(id)).await;
            Ok(())
        }
        Err(error) => {
            give_up(server, id, &error).await;
            server.nri.stop_container(id, server.subject(id)).await;
            Err(error.context(format!("starting container {id}")))
        }
    }
}

/// A container that could not be started has ended, and says why.
async fn give_up(server: &Arc<Server>, id: &str, error: &Error) {
    server.bury(id);
    let kill = task::Kill { container_id: id.to_owned(), signal: 9, all: true, ..Default::default() };
    if server.tasks.kill(&server.scope, kill).await.is_ok() {
        let ended = server.tasks.wait(&server.scope, id, "");
        let _ = tokio::time::timeout(super::stop::KILLED, ended).await;
    }
    match server.tasks.delete(&server.scope, id).await {
        Err(left) if !left.is_not_found() => {
            tracing::warn!(container = id, error = left.chain(), "task of a container that did not start is left");
        }
        _ => {}
    }
    let message = error.chain();
    let ended = server.set_state_and_tell(id, ContainerEventType::ContainerStoppedEvent, |state| {
        state.pid = 0;
        state.finished_at = identity::now();
        state.exit_code = NOT_STARTED;
        state.reason = "StartError".to_owned();
        state.message = message;
    });
    if let Err(error) = ended.await {
        tracing::warn!(container = id, error = error.chain(), "state is not on disk");
    }
}

async fn run(server: &Arc<Server>, pod: &Pod, container: &Container) -> Result<()> {
    let id = container.record.id.as_str();
    stage("preparing the root file system and the streams");
    let entry = server.containers.get(&server.scope, id).await?;
    let rootfs = server.snapshotter(&entry.snapshotter)?.mounts(&server.scope, &entry.snapshot_key).await?;
    let rootfs = server.settings.once(rootfs).await?;
    let io = streams(server, container).await?;
    let config = &container.record.config;
    let stdio = Stdio {
        stdin: io.fifos().stdin(),
        stdout: io.fifos().stdout(),
        stderr: io.fifos().stderr(),
        terminal: config.tty,
    };
    let handler = server.settings.handler(&pod.record.handler)?;
    let images = server.to_restore(id).await?;
    let own = io_owner(&handler, container)?;
    let create = task::Create {
        container_id: id.to_owned(),
        rootfs,
        stdio,
        options: match &images {
            Some(dir) => Some(restore::options(&handler, own, dir)?),
            None => own,
        },
        runtime_path: handler.config.runtime_path.clone(),
        address: pod.record.address.clone(),
        version: pod.record.api,
        ..task::Create::default()
    };
    stage("creating the task");
    let pid = server.bounded("creating a task", server.tasks.create(&server.scope, create)).await?;
    let connected = async || {
        let failed = |error| log_error("following the container's output".to_owned(), error);
        io.connected().await.map_err(failed)
    };
    let pid = match images {
        None => {
            server.meter.follow(id, pid).await;
            connected().await?;
            stage("starting the task");
            server.bounded("starting a task", server.tasks.start(&server.scope, id, "")).await?;
            pid
        }
        // Only now its processes are made, and its streams opened.
        Some(dir) => {
            stage("restoring the task");
            let pid = match server.bounded("restoring a task", server.tasks.start(&server.scope, id, "")).await {
                Ok(pid) => pid,
                Err(error) => return Err(restore::complaint(&dir).await.into_iter().fold(error, Error::context)),
            };
            server.settle(id, pid, entry.spec.as_ref().and_then(cgroup_path)).await?;
            connected().await?;
            server.meter.follow(id, pid).await;
            server.restored(id, dir).await;
            pid
        }
    };
    server.live(id, Life { io: Some(io), ended: watch::Sender::new(false) });
    let started = server.set_state_and_tell(id, ContainerEventType::ContainerStartedEvent, |state| {
        state.pid = pid;
        state.started_at = identity::now();
    });
    started.await?;
    server.monitor(id.to_owned());
    Ok(())
}

/// The shim's pipes belong to the process, or in a user namespace it could not open what its standard streams lead to.
/// Other shims than runc's have options of their own and would refuse these.
fn io_owner(handler: &Handler, container: &Container) -> Result<Option<Any>> {
    let record = &container.record;
    let Some(ids) = Ids::of_container(&record.config).filter(|_| handler.is_runc()) else { return Ok(None) };
    let outside = |range: IdRange, id: i64, what: &str| {
        let found = u32::try_from(id).ok().and_then(|id| range.outside(id));
        found.ok_or_else(|| Error::invalid_argument(format!("{what} {id} is not in the pod's user namespace")))
    };
    let (user, group) = (outside(ids.users, record.uid, "user")?, outside(ids.groups, record.gid, "group")?);
    handler.options_with_io_owner(user, group).map(Some)
}

/// Pipes for the shim and a log for what comes through them.
async fn streams(server: &Server, container: &Container) -> Result<Io> {
    let (dir, config) = (server.settings.files.container_state(&container.record.id), &container.record.config);
    let (id, stdin, tty, log) =
        (container.record.id.clone(), config.stdin, config.tty, container.record.log_path.clone());
    let failed = |doing: &str| {
        let doing = format!("{doing} container {}", container.record.id);
        move |error| log_error(doing, error)
    };
    let parent = Path::new(&log).parent().map(Path::to_owned).filter(|_| !log.is_empty());
    let made = blocking(move || {
        files::make_dir(&dir)?;
        parent.as_deref().map_or(Ok(()), files::make_dir)?;
        Ok(Fifos::create(&dir, &id, stdin, tty))
    });
    let fifos = made.await?.map_err(failed("making pipes for"))?;
    let log = Log::open((!log.is_empty()).then(|| Path::new(&log))).await.map_err(failed("opening the log of"))?;
    Io::start(fifos, log, &server.log_settings()).map_err(failed("opening pipes of"))
}
