//! The plugins of this crate: the shim manager, the task runtime, the task service, the sandbox controller `shim`.

use std::{path::PathBuf, sync::Arc};

use kevel_contract::{
    Scope,
    call::Target,
    diff::DiffService,
    event::Events,
    metadata::Metadata,
    metric::Metrics,
    runtime::{Runtime, Runtimes},
    sandbox::{SandboxController, SandboxControllers},
    task::{TaskService, Tasks},
};
use kevel_plugin::{InitContext, InitError, Kind, Maybe, One, deps};
use serde::{Deserialize, Serialize};

use crate::{Checkpoints, Daemon, Dirs, Role, RuntimeOf, ShimController, ShimManager, TaskManager, Timeouts};

/// Property: the address of the daemon's gRPC socket.
pub const GRPC_ADDRESS: &str = "io.containerd.plugin.grpc.address";
/// Property: the address of the daemon's ttrpc socket, on which shims report events.
pub const TTRPC_ADDRESS: &str = "io.containerd.plugin.ttrpc.address";
/// Property: the path of the daemon's binary, for shims that publish events by running it.
pub const BINARY: &str = "io.kevel.plugin.binary";
/// Property: where shim binaries are looked for, as in the variable `PATH`.
pub const SEARCH_PATH: &str = "io.kevel.plugin.path";
/// Property: `true` when shims shall log what helps to debug.
pub const DEBUG: &str = "io.kevel.plugin.debug";

/// Where binaries are looked for when nobody says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Shim managers: `io.containerd.shim.v1.manager`.
pub enum Shims {}

impl Kind for Shims {
    const TYPE: &'static str = "io.containerd.shim.v1";
    type Handle = ShimManager;
}

/// `io.containerd.shim.v1.manager`.
pub struct Manager;

/// The table of [`Manager`].
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagerConfig {
    /// Variables for shims, as `NAME=value`.
    pub env: Vec<String>,
    /// Where shims make their sockets; empty for their own default.
    pub socket_dir: String,
}

deps! {
    /// What the shim manager needs.
    pub struct ManagerDeps {
        /// Where the events of dead shims go.
        events: One<Events>,
        /// Where shims are counted.
        metrics: Maybe<Metrics>,
    }
}

impl kevel_plugin::Plugin for Manager {
    type Kind = Shims;
    const ID: &'static str = "manager";
    type Config = ManagerConfig;
    type Deps = ManagerDeps;

    async fn init(cx: InitContext, config: ManagerConfig, deps: ManagerDeps) -> Result<ShimManager, InitError> {
        let daemon = daemon(&cx, config)?;
        let manager = ShimManager::new(daemon, timeouts(&cx), deps.events.0);
        if let Some(registry) = &deps.metrics.0 {
            manager.expose(registry).map_err(InitError::failed)?;
        }
        let closing = manager.clone();
        cx.on_close(move || async move { closing.close() });
        Ok(manager)
    }
}

/// The daemon's limits where it has any; it has checked them.
fn timeouts(cx: &InitContext) -> Timeouts {
    let limit = |name: &str, default| {
        let text = cx.property(&format!("io.containerd.timeout.{name}"));
        text.and_then(kevel_model::duration::parse).unwrap_or(default)
    };
    let default = Timeouts::default();
    Timeouts {
        load: limit("shim.load", default.load),
        cleanup: limit("shim.cleanup", default.cleanup),
        shutdown: limit("shim.shutdown", default.shutdown),
        state: limit("task.state", default.state),
        stats: limit("metrics.shimstats", default.stats),
        ..default
    }
}

fn daemon(cx: &InitContext, config: ManagerConfig) -> Result<Daemon, InitError> {
    let bad = |message: String| InitError::Config { uri: cx.uri.clone(), message };
    let mut env = Vec::with_capacity(config.env.len());
    for pair in config.env {
        match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => env.push((name.to_owned(), value.to_owned())),
            _ => return Err(bad(format!("env: {pair:?} is not NAME=value"))),
        }
    }
    let socket_dir = Some(PathBuf::from(config.socket_dir)).filter(|dir| !dir.as_os_str().is_empty());
    if let Some(dir) = socket_dir.as_ref().filter(|dir| !dir.is_absolute()) {
        return Err(bad(format!("socket_dir: {dir:?} is not an absolute path")));
    }
    let property = |name| cx.property(name).unwrap_or_default().to_owned();
    let binary = match cx.property(BINARY) {
        Some(binary) => binary.into(),
        None => std::env::current_exe().map_err(InitError::failed)?,
    };
    // A PATH in the plugin's own table is meant for looking up runtimes, too.
    let own_path = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
    let search_path = own_path.or_else(|| cx.property(SEARCH_PATH)).unwrap_or(DEFAULT_PATH);
    Ok(Daemon {
        grpc_address: property(GRPC_ADDRESS),
        ttrpc_address: property(TTRPC_ADDRESS),
        binary,
        search_path: search_path.split(':').map(PathBuf::from).collect(),
        env,
        socket_dir,
        debug: cx.property(DEBUG) == Some("true"),
    })
}

/// `io.containerd.runtime.v2.task`: takes up the shims of the daemon before, and holds the task bundles.
pub struct TaskRuntime;

deps! {
    /// What the task runtime needs.
    pub struct RuntimeDeps {
        /// The shims.
        shims: One<Shims>,
        /// The records of containers.
        metadata: One<Metadata>,
        /// What packs and unpacks checkpoints.
        differ: Maybe<DiffService>,
    }
}

impl kevel_plugin::Plugin for TaskRuntime {
    type Kind = Runtimes;
    const ID: &'static str = "task";
    type Config = RuntimeConfig;
    type Deps = RuntimeDeps;

    async fn init(cx: InitContext, config: RuntimeConfig, deps: RuntimeDeps) -> Result<Runtime, InitError> {
        let host = kevel_model::Platform::host().to_string();
        if config.platforms.iter().any(|platform| *platform != host) {
            tracing::warn!(plugin = cx.uri, host, "platforms is not acted on: shims serve the host's");
        }
        cx.platform(host);
        cx.export("log-uri-schemes", "fifo,binary,binary-v2,file");
        let dirs = Dirs { state: cx.state.clone(), root: cx.root.clone() };
        let containers = deps.metadata.0.containers.clone();
        let records = containers.clone();
        let runtime_of: RuntimeOf = Arc::new(move |namespace, id| {
            let records = records.clone();
            Box::pin(async move {
                let container = records.get(&Scope::new(namespace), &id).await.ok()?;
                Some(container.runtime.name)
            })
        });
        deps.shims.recover(dirs.clone(), Role::Task, runtime_of).await.map_err(failed)?;
        let shims = deps.shims.0;
        let mut tasks = TaskManager::new(shims.clone(), dirs, containers);
        if let Some(differ) = deps.differ.0 {
            let checkpoints = Checkpoints::new(deps.metadata.0.content, differ, &cx.root).await.map_err(failed)?;
            tasks = tasks.with_checkpoints(checkpoints);
        }
        Ok(Runtime { tasks: Tasks::new(Target::local("tasks"), tasks), probe: Arc::new(shims) })
    }
}

/// The table of [`TaskRuntime`].
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
    /// Platforms that shims serve; not acted on, because they are the host's.
    pub platforms: Vec<String>,
}

/// `io.containerd.service.v1.tasks-service`.
pub struct Service;

deps! {
    /// What the task service needs.
    pub struct ServiceDeps {
        /// What does the work.
        runtime: One<Runtimes>,
    }
}

impl kevel_plugin::Plugin for Service {
    type Kind = TaskService;
    const ID: &'static str = "tasks-service";
    type Config = ();
    type Deps = ServiceDeps;

    async fn init(_: InitContext, (): (), deps: ServiceDeps) -> Result<Tasks, InitError> {
        Ok(deps.runtime.0.tasks)
    }
}

/// `io.containerd.sandbox.controller.v1.shim`.
pub struct Controller;

deps! {
    /// What the sandbox controller needs.
    pub struct ControllerDeps {
        /// The shims.
        shims: One<Shims>,
        /// The records of sandboxes.
        metadata: One<Metadata>,
    }
}

impl kevel_plugin::Plugin for Controller {
    type Kind = SandboxControllers;
    const ID: &'static str = "shim";
    type Config = ();
    type Deps = ControllerDeps;

    async fn init(cx: InitContext, (): (), deps: ControllerDeps) -> Result<SandboxController, InitError> {
        let dirs = Dirs { state: cx.state.clone(), root: cx.root.clone() };
        let sandboxes = deps.metadata.0.sandboxes;
        let runtime_of: RuntimeOf = Arc::new(move |namespace, id| {
            let sandboxes = sandboxes.clone();
            Box::pin(async move {
                let sandbox = sandboxes.get(&Scope::new(namespace), &id).await.ok()?;
                Some(sandbox.runtime.name)
            })
        });
        deps.shims.recover(dirs.clone(), Role::Sandbox, runtime_of).await.map_err(failed)?;
        Ok(SandboxController::new(Target::local("sandbox controller shim"), ShimController::new(deps.shims.0, dirs)))
    }
}

fn failed(error: crate::Error) -> InitError {
    InitError::failed(kevel_model::Error::from(error))
}
