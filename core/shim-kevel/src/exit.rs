//! What follows the end of a process, in an order that daemons rely on: its start was told, then its end; execs before the
//! container.

use std::{sync::Arc, time::Duration};

use kevel_proto::containerd::{events::TaskExit, v1::types::Status};
use kevel_shim::Child;

use crate::{
    container::{Container, lock},
    process::Process,
    record,
    runtime::Call,
};

/// How long the end of the container waits for the ends of its execs.
const EXECS: Duration = Duration::from_secs(5);

impl Container {
    /// Waits for the end of a process and tells it.
    pub(crate) async fn follow(self: Arc<Self>, process: Arc<Process>, child: Child) {
        let pid = child.pid;
        let exit = child.exit().await;
        let _turn = process.turn.lock().await; // who makes or starts it tells that first
        let is_first = process.exec_id.is_empty();
        if is_first {
            // Before anybody knows that it has ended: no exec may start any more.
            process.set_status(Status::Stopped);
            self.end_others().await;
            if let Err(error) = record::note_exit(&self.bundle, pid, exit) {
                tracing::warn!(id = self.id, error = error.chain(), "the end of a container is not on record");
            }
        }
        process.ended(exit);
        let event = TaskExit {
            container_id: self.id.clone(),
            id: if is_first { self.id.clone() } else { process.exec_id.clone() },
            pid,
            exit_status: exit.status,
            exited_at: Some(exit.at.into()),
        };
        self.events.publish("/tasks/exit", &event);
    }

    /// Ends what outlives the first process, and waits until the ends of the execs have been told.
    async fn end_others(&self) {
        if self.kills_all {
            let call = Call::new("kill").arg("--all").arg(&self.id).arg("KILL");
            if let Err(error) = self.runtime.run(call).await {
                tracing::debug!(id = self.id, error = error.chain(), "there was nobody left to kill");
            }
        }
        let execs: Vec<_> = lock(&self.execs).values().cloned().collect();
        let told = async {
            for exec in execs {
                drop(exec.turn.lock().await); // one that is being started has a pid after that
                if exec.pid() != 0 {
                    exec.wait().await;
                }
            }
        };
        if tokio::time::timeout(EXECS, told).await.is_err() {
            tracing::warn!(id = self.id, "processes outlive their container");
        }
    }
}
