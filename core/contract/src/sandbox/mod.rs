//! Sandboxes: environments that containers share (a pod, a virtual machine), their records and their controllers.

#[cfg(feature = "suite")]
pub mod suite;

use std::{borrow::Cow, collections::BTreeMap, time::SystemTime};

use async_trait::async_trait;
use kevel_model::{Adaptor, Any, Filters, Labels, Mount, Platform, Result, filter};
use kevel_plugin::Kind;

use crate::{Scope, call::handle, container::Runtime};

/// The sandbox store: `io.containerd.sandbox.store.v1.local`.
pub enum SandboxStores {}

impl Kind for SandboxStores {
    const TYPE: &'static str = "io.containerd.sandbox.store.v1";
    type Handle = SandboxStore;
}

/// Sandbox controllers by name (`shim`, proxies): `io.containerd.sandbox.controller.v1`.
pub enum SandboxControllers {}

impl Kind for SandboxControllers {
    const TYPE: &'static str = "io.containerd.sandbox.controller.v1";
    type Handle = SandboxController;
}

/// The controller whose sandbox is an ordinary container: `io.containerd.podsandbox.controller.v1.podsandbox`.
pub enum PodSandboxControllers {}

impl Kind for PodSandboxControllers {
    const TYPE: &'static str = "io.containerd.podsandbox.controller.v1";
    type Handle = SandboxController;
}

/// A sandbox's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Identifier, unique in its namespace.
    pub id: String,
    /// The runtime it is made for.
    pub runtime: Runtime,
    /// Its spec; its form is the controller's business.
    pub spec: Option<Any>,
    /// Its labels.
    pub labels: Labels,
    /// When it was made; set by the store.
    pub created_at: SystemTime,
    /// When it changed last; set by the store.
    pub updated_at: SystemTime,
    /// What clients keep with it, by name.
    pub extensions: BTreeMap<String, Any>,
    /// The controller that runs it.
    pub sandboxer: String,
}

impl Sandbox {
    /// An empty record with an id.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            runtime: Runtime::default(),
            spec: None,
            labels: Labels::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            extensions: BTreeMap::new(),
            sandboxer: String::new(),
        }
    }
}

impl Adaptor for Sandbox {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (name, []) if name == "id" => Some(self.id.as_str().into()),
            (name, []) if name == "sandboxer" => Some(self.sandboxer.as_str().into()),
            (name, rest) if name == "runtime" => match rest {
                [field] if field == "name" => Some(self.runtime.name.as_str().into()),
                _ => None,
            },
            (name, key) if name == "labels" => filter::map_field(&self.labels, key),
            _ => None,
        }
    }
}

/// A store of sandbox records, for whoever writes one. `update` takes the field paths `labels[.KEY]`,
/// `extensions[.KEY]`, `runtime`, `spec`; none means all of them.
#[async_trait]
pub trait StoreBackend: Send + Sync + 'static {
    /// One sandbox by id.
    async fn get(&self, scope: &Scope, id: &str) -> Result<Sandbox>;
    /// All sandboxes that match.
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Sandbox>>;
    /// Adds a sandbox.
    async fn create(&self, scope: &Scope, sandbox: Sandbox) -> Result<Sandbox>;
    /// Changes a sandbox.
    async fn update(&self, scope: &Scope, sandbox: Sandbox, fieldpaths: &[String]) -> Result<Sandbox>;
    /// Removes a sandbox.
    async fn delete(&self, scope: &Scope, id: &str) -> Result<()>;
}

handle! {
    /// A store of sandbox records, for whoever uses one.
    SandboxStore over StoreBackend {
        /// One sandbox by id.
        fn get(scope: &Scope, id: &str) -> Sandbox;
        /// All sandboxes that match.
        fn list(scope: &Scope, filters: &Filters) -> Vec<Sandbox>;
        /// Adds a sandbox.
        fn create(scope: &Scope, sandbox: Sandbox) -> Sandbox;
        /// Changes a sandbox.
        fn update(scope: &Scope, sandbox: Sandbox, fieldpaths: &[String]) -> Sandbox;
        /// Removes a sandbox.
        fn delete(scope: &Scope, id: &str) -> ();
    }
}

/// What a controller makes a sandbox from.
#[derive(Clone, Debug)]
pub struct Create {
    /// The sandbox's record.
    pub sandbox: Sandbox,
    /// Mounts of its root file system, if it has one.
    pub rootfs: Vec<Mount>,
    /// What the client wants it to be: for Kubernetes the `PodSandboxConfig` message.
    pub options: Option<Any>,
    /// Path of its network namespace; empty when it has none of its own.
    pub netns_path: String,
    /// Annotations for the shim.
    pub annotations: BTreeMap<String, String>,
}

/// A sandbox that runs.
#[derive(Clone, Debug, Default)]
pub struct Started {
    /// Its first process on the host; 0 when it has none.
    pub pid: u32,
    /// When it was made.
    pub created_at: Option<SystemTime>,
    /// Labels that the controller adds.
    pub labels: Labels,
    /// The task API address for its containers (`ttrpc+unix://…`); empty when containers start shims of their own.
    pub address: String,
    /// The version of that API.
    pub version: u32,
    /// The spec it runs with, if the controller tells.
    pub spec: Option<Any>,
}

/// What a controller says of a sandbox.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Its first process on the host; 0 when it has none.
    pub pid: u32,
    /// `SANDBOX_READY` or `SANDBOX_NOTREADY`.
    pub state: String,
    /// Verbose details, when asked for.
    pub info: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Option<SystemTime>,
    /// When it exited, if it did.
    pub exited_at: Option<SystemTime>,
    /// More, if the controller has it.
    pub extra: Option<Any>,
    /// The task API address for its containers.
    pub address: String,
    /// The version of that API.
    pub version: u32,
}

/// The state string of a sandbox that runs.
pub const READY: &str = "SANDBOX_READY";
/// The state string of a sandbox that does not.
pub const NOT_READY: &str = "SANDBOX_NOTREADY";

/// How a sandbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit status of its first process, 128 + signal for a signal.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// A sandbox controller, for whoever writes one. `create` prepares, `start` runs, `stop` ends the processes (after
/// `timeout`, with force), `shutdown` removes every trace and succeeds when there is none. `wait` answers when the
/// sandbox has ended, at once if it has. Controllers may answer "unimplemented" to `metrics` and `update`.
#[async_trait]
pub trait ControllerBackend: Send + Sync + 'static {
    /// Prepares a sandbox.
    async fn create(&self, scope: &Scope, create: Create) -> Result<()>;
    /// Runs it.
    async fn start(&self, scope: &Scope, id: &str) -> Result<Started>;
    /// The platform that its containers run on.
    async fn platform(&self, scope: &Scope, id: &str) -> Result<Platform>;
    /// Ends its processes.
    async fn stop(&self, scope: &Scope, id: &str, timeout: std::time::Duration) -> Result<()>;
    /// Waits for its end.
    async fn wait(&self, scope: &Scope, id: &str) -> Result<Exit>;
    /// How it is.
    async fn status(&self, scope: &Scope, id: &str, verbose: bool) -> Result<Status>;
    /// Removes every trace.
    async fn shutdown(&self, scope: &Scope, id: &str) -> Result<()>;
    /// What it uses: a metrics message.
    async fn metrics(&self, scope: &Scope, id: &str) -> Result<crate::task::Metric>;
    /// Changes it; `fieldpaths` name what.
    async fn update(&self, scope: &Scope, sandbox: Sandbox, fieldpaths: &[String]) -> Result<()>;
}

handle! {
    /// A sandbox controller, for whoever uses one. [`SandboxController::wait`] has no deadline.
    SandboxController over ControllerBackend {
        /// Prepares a sandbox.
        fn create(scope: &Scope, create: Create) -> ();
        /// Runs it.
        fn start(scope: &Scope, id: &str) -> Started;
        /// The platform that its containers run on.
        fn platform(scope: &Scope, id: &str) -> Platform;
        /// Ends its processes.
        fn stop(scope: &Scope, id: &str, timeout: std::time::Duration) -> ();
        /// How it is.
        fn status(scope: &Scope, id: &str, verbose: bool) -> Status;
        /// Removes every trace.
        fn shutdown(scope: &Scope, id: &str) -> ();
        /// What it uses.
        fn metrics(scope: &Scope, id: &str) -> crate::task::Metric;
        /// Changes it.
        fn update(scope: &Scope, sandbox: Sandbox, fieldpaths: &[String]) -> ();
    }
}

impl SandboxController {
    /// Waits for a sandbox's end, however long that takes.
    pub async fn wait(&self, scope: &Scope, id: &str) -> Result<Exit> {
        self.backend.wait(scope, id).await
    }
}
