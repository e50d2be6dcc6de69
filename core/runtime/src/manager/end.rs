//! The end of a shim: asked for, or found.

use std::{path::Path, time::SystemTime};

use kevel_contract::task::{Deleted, Exit};
use kevel_model::Namespace;
use kevel_proto::{
    containerd::events::{TaskDelete, TaskExit},
    containerd::v1::types::Status,
    shim::task::{DeleteResponse, ShutdownRequest, StateRequest, StateResponse, method},
};

use super::{ShimManager, reports::Owed, start::blocking, stray};
use crate::{
    Address, Bootstrap, Bundle, Role, Shim,
    binary::{self, Invocation},
    wire,
};

/// The exit status of a container of which nothing better is known.
const UNKNOWN_STATUS: u32 = 255;

impl ShimManager {
    /// Lets go of a container that its shim has deleted: asks the shim to end if it serves nobody else, closes the
    /// connection, removes the bundle. The caller holds `shim.ending`.
    pub(crate) async fn release(&self, shim: &Shim) {
        // Noted whoever ends the shim: those that stay have to know who left.
        let last = self.inner.table.leave(shim);
        if last && !shim.hosted {
            self.reported(shim).await;
            let request = ShutdownRequest { id: shim.id.clone(), now: false };
            let answer = shim.task::<_, ()>(method::SHUTDOWN, &request, Some(self.inner.timeouts.shutdown)).await;
            if let Err(error) = answer.map_err(|error| kevel_model::Error::from(error).chain())
                && !shim.is_closed()
            {
                tracing::warn!(id = shim.id, error, "a shim did not take its shutdown");
            }
            // A shim finds its socket by what is in the bundle of its first container, which may be gone before others'.
            let (manager, bootstrap) = (self.clone(), shim.bootstrap.clone());
            tokio::spawn(async move { manager.remove_socket(&bootstrap).await });
        }
        self.forget(shim).await;
    }

    /// Closes the connection, removes the bundle, frees the id. The caller holds `shim.ending`.
    pub(crate) async fn forget(&self, shim: &Shim) {
        shim.close();
        self.remove_bundle(&shim.bundle).await;
        self.inner.reports.forget(&(shim.namespace.clone(), shim.id.clone()));
        self.inner.table.remove(shim);
        shim.gone.cancel();
    }

    /// Waits for the events of a deleted container, and publishes those that its shim does not send.
    async fn reported(&self, shim: &Shim) {
        let key = (shim.namespace.clone(), shim.id.clone());
        let limit = self.inner.timeouts.report;
        if tokio::time::timeout(limit, self.inner.reports.settled(&key)).await.is_ok() {
            return;
        }
        let (Some(owed), Some(deleted)) = (self.inner.reports.owed(&key), self.exits().get(&key)) else { return };
        tracing::warn!(id = shim.id, ?owed, "a shim did not send the events of a container's end");
        self.publish_end(&shim.namespace, &deleted, owed).await;
    }

    /// Ends the shim of a container that was created, never started, and that its runtime does not remove: nothing of it has
    /// run, and the shim's binary removes it by force. Answers whether it did; not when the shim has others to care for.
    pub(crate) async fn break_off(&self, shim: &Shim) -> bool {
        let request = StateRequest { id: shim.id.clone(), exec_id: String::new() };
        let state = shim.task::<_, StateResponse>(method::STATE, &request, Some(self.inner.timeouts.state)).await;
        let created = state.is_ok_and(|state| state.status() == Status::Created);
        if !created || shim.hosted || self.inner.table.is_shared(shim) {
            return false;
        }
        let path = shim.bundle.path.clone();
        let killed = blocking(move || {
            stray::kill(&path);
            Ok(())
        });
        let _ = killed.await; // only fails when the daemon stops
        // Its watch cleans up: one run of a binary, one directory.
        tokio::time::timeout(self.inner.timeouts.cleanup * 2, shim.gone.cancelled()).await.is_ok()
    }

    /// Cleans up after a shim that died, once: its binary removes what is left, and the events that the shim can no
    /// longer send are sent in its name.
    pub(super) async fn lost(&self, shim: &Shim) {
        let _ending = shim.ending.lock().await;
        if shim.gone.is_cancelled() {
            return;
        }
        tracing::warn!(id = shim.id, namespace = %shim.namespace, pid = shim.pid(), "a shim died; cleaning up");
        let response = self.run_delete(&shim.binary, &shim.namespace, &shim.id, &shim.bundle).await;
        self.bury(shim.role, &shim.namespace, &shim.id, response).await;
        if !shim.hosted {
            self.remove_socket(&shim.bootstrap).await;
        }
        self.forget(shim).await;
    }

    pub(super) async fn remove_socket(&self, bootstrap: &Bootstrap) {
        if let Ok(address) = bootstrap.address.parse::<Address>() {
            address.remove_dead().await;
        }
    }

    /// Removes what a shim left that nobody can talk to: its process, then, by its binary, its container.
    pub(super) async fn abandon(
        &self,
        binary: &Path,
        namespace: &Namespace,
        id: &str,
        bundle: &Bundle,
    ) -> Option<DeleteResponse> {
        let path = bundle.path.clone();
        let killed = blocking(move || {
            stray::kill(&path);
            Ok(())
        });
        let _ = killed.await; // only fails when the daemon stops
        self.run_delete(binary, namespace, id, bundle).await
    }

    /// Runs the binary's `delete`; `None` when it fails.
    pub(super) async fn run_delete(
        &self,
        binary: &Path,
        namespace: &Namespace,
        id: &str,
        bundle: &Bundle,
    ) -> Option<DeleteResponse> {
        if binary.as_os_str().is_empty() {
            return None;
        }
        let limit = self.inner.timeouts.cleanup;
        let run = Invocation { daemon: &self.inner.daemon, binary, namespace, id, bundle: &bundle.path, limit };
        match binary::delete(&run).await {
            Ok(response) => Some(response),
            Err(error) => {
                let error = kevel_model::Error::from(error).chain();
                tracing::warn!(id, %namespace, error, "the delete of a shim failed");
                None
            }
        }
    }

    /// Remembers the end of a container, and publishes it, unless it was deleted before.
    pub(super) async fn bury(&self, role: Role, namespace: &Namespace, id: &str, response: Option<DeleteResponse>) {
        let key = (namespace.clone(), id.to_owned());
        if self.exits().get(&key).is_some() {
            return;
        }
        let response = response.unwrap_or(DeleteResponse { pid: 0, exit_status: UNKNOWN_STATUS, exited_at: None });
        let deleted = deleted(id, response);
        self.exits().put(key.clone(), deleted.clone());
        if role == Role::Sandbox {
            return; // sandboxes' events are made from what their controller answers
        }
        // What the shim has sent before it died is not said again.
        let owed = self.inner.reports.owed(&key).unwrap_or(Owed::ALL);
        self.publish_end(namespace, &deleted, owed).await;
    }

    async fn publish_end(&self, namespace: &Namespace, deleted: &Deleted, owed: Owed) {
        let exited_at = Some(wire::timestamp(deleted.exit.at));
        let (container_id, pid, exit_status) = (deleted.id.clone(), deleted.pid, deleted.exit.status);
        if owed.exit {
            let exit =
                TaskExit { container_id: container_id.clone(), id: deleted.id.clone(), pid, exit_status, exited_at };
            self.publish(namespace, "/tasks/exit", exit).await;
        }
        if owed.delete {
            let delete = TaskDelete { container_id, pid, exit_status, exited_at, id: String::new() };
            self.publish(namespace, "/tasks/delete", delete).await;
        }
    }
}

/// What a shim says of a deleted process, in our words.
pub(crate) fn deleted(id: &str, response: DeleteResponse) -> Deleted {
    let at = wire::time(response.exited_at).unwrap_or_else(SystemTime::now);
    Deleted { id: id.to_owned(), pid: response.pid, exit: Exit { status: response.exit_status, at } }
}
