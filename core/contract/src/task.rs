//! Tasks: containers as processes.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use kevel_model::{Adaptor, Any, Descriptor, Filters, Mount, Result};
use kevel_plugin::Kind;

use crate::{Scope, call::handle};

/// The task service: `io.containerd.service.v1.tasks-service`.
pub enum TaskService {}

impl Kind for TaskService {
    const TYPE: &'static str = "io.containerd.service.v1";
    type Handle = Tasks;
}

/// Where a process's standard streams go: paths of FIFOs, or URIs that the shim knows (`file://`, `binary://`). Empty
/// means nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Standard input.
    pub stdin: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Whether the process gets a terminal; stderr is then unused.
    pub terminal: bool,
}

/// What to make a task from, beside the container's record.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// The container.
    pub container_id: String,
    /// Mounts of its root file system.
    pub rootfs: Vec<Mount>,
    /// Its standard streams.
    pub stdio: Stdio,
    /// A checkpoint to restore from: of the media type [`CHECKPOINT_IMAGES`], in the content store.
    pub checkpoint: Option<Descriptor>,
    /// Options for the shim; the container's runtime options when there are none.
    pub options: Option<Any>,
    /// A shim binary to use instead of the one that the runtime's name stands for.
    pub runtime_path: String,
    /// The task API of the container's sandbox (`ttrpc+unix://…`), when the sandbox brings one; see
    /// [`crate::sandbox::Started`].
    pub address: String,
    /// The version of that API.
    pub version: u32,
}

/// Media type of the archive that a checkpoint's images are kept in.
pub const CHECKPOINT_IMAGES: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
/// Media type of the spec that a checkpoint was made of, as a typed blob.
pub const CHECKPOINT_CONFIG: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";

/// What to write a checkpoint of.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// The container.
    pub container_id: String,
    /// Options for the shim. When they name a directory for the images, these go there and not into the content store.
    pub options: Option<Any>,
    /// The longest that the shim may take; none for what is usual.
    pub limit: Option<Duration>,
}

/// How a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing is known.
    #[default]
    Unknown,
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Has ended.
    Stopped,
    /// Frozen.
    Paused,
    /// About to be frozen.
    Pausing,
}

/// A task, or a process that was executed in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The container.
    pub container_id: String,
    /// The process: the container's id for the first one, else the exec's id.
    pub id: String,
    /// Process id on the host.
    pub pid: u32,
    /// How it is.
    pub state: State,
    /// Its streams.
    pub stdio: Stdio,
    /// Exit status, once stopped.
    pub exit_status: u32,
    /// When it exited, once stopped.
    pub exited_at: Option<SystemTime>,
}

impl Adaptor for Process {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path {
            [name] if name == "id" => Some(self.id.as_str().into()),
            _ => None,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit status; 128 + signal for a signal.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// What is left of a deleted process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The process.
    pub id: String,
    /// Its process id on the host.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
}

/// What to execute in a task.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// The container.
    pub container_id: String,
    /// The new process's id.
    pub exec_id: String,
    /// Its streams.
    pub stdio: Stdio,
    /// Its OCI process spec, as JSON in a typed blob.
    pub spec: Option<Any>,
}

/// A signal to send.
#[derive(Clone, Debug, Default)]
pub struct Kill {
    /// The container.
    pub container_id: String,
    /// The process; empty for the first one.
    pub exec_id: String,
    /// The signal's number.
    pub signal: u32,
    /// To every process of the container.
    pub all: bool,
}

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pid {
    /// Process id on the host.
    pub pid: u32,
    /// What the shim adds.
    pub info: Option<Any>,
}

/// What something used, at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// When it was read.
    pub timestamp: SystemTime,
    /// Whose it is.
    pub id: String,
    /// A typed message of the runtime's; for Linux containers cgroup statistics.
    pub data: Option<Any>,
}

/// New limits for a task.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// The container.
    pub container_id: String,
    /// OCI Linux resources, as JSON in a typed blob.
    pub resources: Option<Any>,
    /// Annotations for the shim.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// The task service, for whoever writes one. In calls that name a process, an empty `exec_id` means the container's
/// first one. Waiting on a process that has ended answers at once; deleting a task ends its shim's care for the
/// container, and deleting it again answers the same for a while.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Makes a task; answers its process id.
    async fn create(&self, scope: &Scope, create: Create) -> Result<u32>;
    /// Starts a process; answers its process id.
    async fn start(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<u32>;
    /// Removes a task that has ended.
    async fn delete(&self, scope: &Scope, container_id: &str) -> Result<Deleted>;
    /// Removes an exec that has ended.
    async fn delete_process(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Deleted>;
    /// How a process is.
    async fn get(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Process>;
    /// All tasks.
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Process>>;
    /// Sends a signal.
    async fn kill(&self, scope: &Scope, kill: Kill) -> Result<()>;
    /// Adds a process; it is started with `start`.
    async fn exec(&self, scope: &Scope, exec: Exec) -> Result<()>;
    /// Resizes a terminal.
    async fn resize(&self, scope: &Scope, container_id: &str, exec_id: &str, width: u32, height: u32) -> Result<()>;
    /// Closes a process's standard input.
    async fn close_io(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<()>;
    /// Freezes.
    async fn pause(&self, scope: &Scope, container_id: &str) -> Result<()>;
    /// Thaws.
    async fn resume(&self, scope: &Scope, container_id: &str) -> Result<()>;
    /// Every process of the container.
    async fn pids(&self, scope: &Scope, container_id: &str) -> Result<Vec<Pid>>;
    /// Writes a checkpoint; answers what it is made of in the content store, where the caller's lease keeps it.
    async fn checkpoint(&self, scope: &Scope, checkpoint: Checkpoint) -> Result<Vec<Descriptor>>;
    /// Changes limits.
    async fn update(&self, scope: &Scope, update: Update) -> Result<()>;
    /// What tasks use.
    async fn metrics(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Metric>>;
    /// Waits for a process's end.
    async fn wait(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Exit>;
}

handle! {
    /// The task service, for whoever uses it. [`Tasks::wait`] has no deadline.
    Tasks over Backend {
        /// Makes a task; answers its process id.
        fn create(scope: &Scope, create: Create) -> u32;
        /// Starts a process; answers its process id.
        fn start(scope: &Scope, container_id: &str, exec_id: &str) -> u32;
        /// Removes a task that has ended.
        fn delete(scope: &Scope, container_id: &str) -> Deleted;
        /// Removes an exec that has ended.
        fn delete_process(scope: &Scope, container_id: &str, exec_id: &str) -> Deleted;
        /// How a process is.
        fn get(scope: &Scope, container_id: &str, exec_id: &str) -> Process;
        /// All tasks.
        fn list(scope: &Scope, filters: &Filters) -> Vec<Process>;
        /// Sends a signal.
        fn kill(scope: &Scope, kill: Kill) -> ();
        /// Adds a process.
        fn exec(scope: &Scope, exec: Exec) -> ();
        /// Resizes a terminal.
        fn resize(scope: &Scope, container_id: &str, exec_id: &str, width: u32, height: u32) -> ();
        /// Closes a process's standard input.
        fn close_io(scope: &Scope, container_id: &str, exec_id: &str) -> ();
        /// Freezes.
        fn pause(scope: &Scope, container_id: &str) -> ();
        /// Thaws.
        fn resume(scope: &Scope, container_id: &str) -> ();
        /// Every process of the container.
        fn pids(scope: &Scope, container_id: &str) -> Vec<Pid>;
        /// Writes a checkpoint.
        fn checkpoint(scope: &Scope, checkpoint: Checkpoint) -> Vec<Descriptor>;
        /// Changes limits.
        fn update(scope: &Scope, update: Update) -> ();
        /// What tasks use.
        fn metrics(scope: &Scope, filters: &Filters) -> Vec<Metric>;
    }
}

impl Tasks {
    /// Waits for a process's end, however long that takes.
    pub async fn wait(&self, scope: &Scope, container_id: &str, exec_id: &str) -> Result<Exit> {
        self.backend.wait(scope, container_id, exec_id).await
    }
}
