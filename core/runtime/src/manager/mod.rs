//! The shims of this node: starts them, keeps track of them, notices when they die, takes them up again after a restart.
//!
//! What is done *with* a shim is in [`crate::tasks`] and [`crate::sandbox`].

mod cgroup;
mod end;
mod exits;
mod force;
mod health;
mod recover;
mod reports;
mod start;
mod stray;
mod stuck;
mod table;

use std::sync::{Arc, Mutex, OnceLock};

use kevel_contract::{event::EventExchange, introspection::RuntimeInfo, task::Deleted};
use kevel_model::{Any, Namespace};

use prometheus::IntCounterVec;

use crate::{
    Daemon, Error, Result, Role, Shim, Timeouts,
    binary::{self, Binaries},
    wire,
};
pub(crate) use end::deleted;
use exits::Exits;
pub use recover::RuntimeOf;
use reports::Reports;
pub(crate) use start::{Join, Launch};
use table::Table;
use tokio_util::sync::CancellationToken;

/// The shims of this node. Cheap to clone.
#[derive(Clone)]
pub struct ShimManager {
    inner: Arc<Inner>,
}

struct Inner {
    daemon: Daemon,
    timeouts: Timeouts,
    events: EventExchange,
    binaries: Binaries,
    table: Table,
    exits: Mutex<Exits>,
    reports: Arc<Reports>,
    /// How often shims were stuck, by stage, once somebody counts it.
    stuck: OnceLock<IntCounterVec>,
    /// Cancelled when shims are no longer watched.
    closing: CancellationToken,
}

/// In which namespace, and which.
pub(crate) type Key = (Namespace, String);

impl ShimManager {
    /// A manager without shims. Synthetic events, of containers whose shim died, go to `events`.
    pub fn new(daemon: Daemon, timeouts: Timeouts, events: EventExchange) -> Self {
        let inner = Inner {
            daemon,
            timeouts,
            events,
            binaries: Binaries::default(),
            table: Table::default(),
            exits: Mutex::default(),
            reports: Arc::default(),
            stuck: OnceLock::new(),
            closing: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// How long things may take.
    pub fn timeouts(&self) -> &Timeouts {
        &self.inner.timeouts
    }

    /// Stops watching: shims go on without us, for the next daemon, and what is lost from now on is not cleaned up.
    pub fn close(&self) {
        self.inner.closing.cancel();
    }

    /// The shim of a container or sandbox. One that is just being taken up after a restart is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn get(&self, namespace: &Namespace, id: &str, role: Role) -> Result<Arc<Shim>> {
        let found = self.inner.table.get(&(namespace.clone(), id.to_owned())).await;
        found.filter(|shim| shim.role == role).ok_or_else(|| Error::NotFound {
            what: role.noun(),
            id: id.to_owned(),
            namespace: namespace.to_string(),
        })
    }

    /// Every shim of a namespace, by id. Waits for those that are just being taken up after a restart.
    pub async fn list(&self, namespace: &Namespace, role: Role) -> Vec<Arc<Shim>> {
        let mut shims = self.inner.table.all().await;
        shims.retain(|shim| shim.namespace == *namespace && shim.role == role);
        shims
    }

    /// What the shim of a runtime says of itself and of the runtime behind it (`-info`).
    ///
    /// # Errors
    ///
    /// When there is no such shim, or it can't answer; old shims do not know the question.
    pub async fn runtime_info(&self, runtime: &str, options: Option<&Any>) -> Result<RuntimeInfo> {
        let daemon = &self.inner.daemon;
        let path = self.inner.binaries.resolve(daemon, runtime, "")?;
        let info = binary::info(daemon, &path, options, self.inner.timeouts.info).await?;
        let version = info.version.unwrap_or_default();
        Ok(RuntimeInfo {
            name: info.name,
            version: version.version,
            revision: version.revision,
            options: info.options.map(wire::from_any),
            features: info.features.map(wire::from_any),
            annotations: info.annotations.into_iter().collect(),
        })
    }

    /// How a container that is gone ended, if that is still known.
    pub(crate) fn exit(&self, namespace: &Namespace, id: &str) -> Option<Deleted> {
        self.exits().get(&(namespace.clone(), id.to_owned()))
    }

    pub(crate) fn remember(&self, shim: &Shim, deleted: Deleted) {
        self.exits().put((shim.namespace.clone(), shim.id.clone()), deleted);
    }

    fn exits(&self) -> std::sync::MutexGuard<'_, Exits> {
        self.inner.exits.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Calls the task service of a container's shim, see [`Shim::task`]. When the shim turns out to be dead, its cleanup
    /// is waited for and the error says that the task is gone.
    pub(crate) async fn call<Req, Resp>(
        &self,
        shim: &Shim,
        method: &'static str,
        request: &Req,
        limit: Option<std::time::Duration>,
    ) -> Result<Resp>
    where
        Req: prost::Message + Clone + 'static,
        Resp: prost::Message + Default + 'static,
    {
        let answer = shim.task(method, request, limit).await;
        if answer.as_ref().is_err_and(Error::is_closed) {
            // Cleaning up runs one binary and removes a directory.
            let _ = tokio::time::timeout(self.inner.timeouts.cleanup * 2, shim.gone.cancelled()).await;
            return Err(Error::Gone { id: shim.id.clone() });
        }
        answer
    }

    async fn publish(&self, namespace: &Namespace, topic: &str, event: impl prost::Name) {
        let scope = kevel_contract::Scope::new(namespace.clone());
        let any = Any::new(event_name(&event), event.encode_to_vec());
        if let Err(error) = self.inner.events.publish(&scope, topic, any).await {
            tracing::warn!(topic, error = error.chain(), "an event of a dead shim was not published");
        }
    }
}

fn event_name<M: prost::Name>(_: &M) -> String {
    M::full_name()
}

impl std::fmt::Debug for ShimManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShimManager").field("daemon", &self.inner.daemon).finish_non_exhaustive()
    }
}
