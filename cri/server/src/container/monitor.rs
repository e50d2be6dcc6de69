//! The end of a container's process.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use kevel_contract::task::Exit;
use kevel_model::{Any, Filters, Result};
use kevel_proto::{any, containerd::events::TaskOom, runtime::v1::ContainerEventType};

use crate::{
    controller::delete_ended, files::blocking, identity, record::ContainerState, server::Server, usage::Verdict,
};

/// Between two attempts to wait, when the task service cannot.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a log waits for output that a left behind child may still hold the stream of.
const DRAIN: Duration = Duration::from_secs(10);
/// The exit code of a process whose end nobody saw.
pub(crate) const UNKNOWN: u32 = 255;

impl Server {
    /// Waits for the container's end and puts it on record.
    pub(crate) fn monitor(self: &Arc<Self>, id: String) {
        let server = self.clone();
        tokio::spawn(async move {
            let exit = loop {
                match server.tasks.wait(&server.scope, &id, "").await {
                    Ok(exit) => break exit,
                    Err(error) if error.is_not_found() => {
                        break Exit { status: UNKNOWN, at: std::time::SystemTime::now() };
                    }
                    Err(error) => tracing::debug!(container = id, error = error.chain(), "waiting for a container"),
                }
                if server.life(&id).is_none() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            };
            server.ended(&id, exit).await;
        });
    }

    /// Puts a container's end on record: its output is written, its state saved, whoever waits told. Its task goes last,
    /// because until the state is on disk it is the only other one that knows, and because removing it takes a run of the
    /// runtime that nobody needs to wait for: whoever stops the pod or removes the container does, and a start of the daemon
    /// goes on with it.
    pub(crate) async fn ended(self: &Arc<Self>, id: &str, exit: Exit) {
        let life = self.life(id);
        let oom = self.judge_oom(id).await; // before its cgroup is removed with the task
        if let Some(io) = life.as_ref().and_then(|life| life.io.as_ref()) {
            if tokio::time::timeout(DRAIN, io.drained()).await.is_err() {
                tracing::warn!(container = id, "output did not end with the container");
            }
            io.stop();
        }
        if oom != Verdict::No && oom != Verdict::Unknown {
            self.counters.oom.inc();
        }
        let what = ContainerEventType::ContainerStoppedEvent;
        let saved = self.set_state_and_tell(id, what, |state| end(state, &exit, oom));
        if let Err(error) = saved.await {
            tracing::warn!(container = id, error = error.chain(), "state is not on disk");
        }
        if let Some(life) = self.bury(id) {
            life.ended.send_replace(true);
        }
        self.nri.stop_container(id, self.subject(id)).await;
        if let Err(error) = self.bounded("deleting a task", self.delete_task(id)).await {
            tracing::warn!(container = id, error = error.chain(), "task of an ended container is left");
        }
        if let Some(io) = life.as_ref().and_then(|life| life.io.as_ref()) {
            let _ = io.fifos().remove(); // the container's directory goes with the container
        }
    }

    /// Whether the kernel killed a process of the container for want of memory.
    async fn judge_oom(&self, id: &str) -> Verdict {
        let spec = async {
            let entry = self.containers.get(&self.scope, id).await.ok()?;
            cgroup_path(&entry.spec?)
        };
        // One that was taken up after a restart may have ended before anybody looked where it is.
        let path = if self.meter.follows(id) { None } else { spec.await };
        let (meter, id) = (self.meter.clone(), id.to_owned());
        blocking(move || Ok(meter.oom(&id, path.as_deref()))).await.unwrap_or(Verdict::Unknown)
    }

    /// Removes the task of a container that has ended; one that is gone is no error.
    pub(crate) async fn delete_task(&self, id: &str) -> Result<()> {
        delete_ended(&self.tasks, &self.scope, id).await
    }

    /// Remembers which containers the kernel took a process from for want of memory, until the exchange ends. A shim's
    /// word counts only where the container's own counter could not be read: in version 1 of cgroups shims hear of it
    /// when another container of the pod is meant.
    pub async fn follow_oom(self: Arc<Self>) {
        loop {
            let filters = Filters::parse(&["topic==/tasks/oom,namespace==k8s.io"]).unwrap_or_default();
            let Ok(mut stream) = self.events.subscribe(&filters).await else { return };
            while let Some(Ok(envelope)) = stream.next().await {
                let event = prost_types::Any { type_url: envelope.event.type_url, value: envelope.event.value };
                let Ok(oom) = any::unpack::<TaskOom>(&event) else { continue };
                // The end may have been put on record before the news came.
                let marked = self.set_state(&oom.container_id, |state| {
                    if state.oom_counted {
                        return;
                    }
                    state.oom_killed = true;
                    if state.finished_at != 0 && state.exit_code != 0 {
                        state.reason = "OOMKilled".to_owned();
                    }
                });
                let _ = marked.await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The state of a container that has ended.
fn end(state: &mut ContainerState, exit: &Exit, oom: Verdict) {
    state.pid = 0;
    state.unknown = false;
    state.finished_at = identity::nanos(exit.at).max(state.started_at);
    state.exit_code = i32::try_from(exit.status).unwrap_or(i32::MAX);
    state.oom_counted = oom != Verdict::Unknown;
    if state.oom_counted {
        state.oom_killed = oom != Verdict::No;
    }
    oom.message().clone_into(&mut state.message);
    state.reason = match (state.oom_killed, state.exit_code) {
        (true, code) if code != 0 => "OOMKilled",
        (_, 0) => "Completed",
        _ => "Error",
    }
    .to_owned();
}

/// Where a specification says that a container's cgroup is.
pub(super) fn cgroup_path(spec: &Any) -> Option<String> {
    let spec: serde_json::Value = serde_json::from_slice(&spec.value).ok()?;
    spec.pointer("/linux/cgroupsPath")?.as_str().map(str::to_owned)
}
