//! An example of a shim: sandboxes that are one sleeping process each, and no tasks at all. Beside the sandbox service it
//! has a kind of plugin of its own, a plugin of that kind, and one that skips.
//!
//! A daemon finds it as `containerd-shim-sleeper-v1`, for the runtime type `io.example.sleeper.v1`.

use std::{
    collections::BTreeMap,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use kevel_plugin::{InitContext, InitError, Kind, One, Plugin, Registry, deps};
use kevel_proto::{
    containerd::{
        events::{SandboxExit, SandboxStart},
        types::RuntimeInfo,
    },
    shim::sandbox::{
        CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, SandboxStatusRequest,
        SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
        StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
    },
};
use kevel_shim::{
    Delete, Deleted, Error, Exit, Info, Publisher, Publishers, Reaper, Reapers, Services, Shim, Shutdown, Shutdowns,
    TtrpcServices, read_small,
    sandbox::{Sandboxes, services},
    write_small,
};
use kevel_ttrpc::{Code, Status};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

/// A kind of plugin of the shim's own: what is to be done in a sandbox.
enum Chores {}

impl Kind for Chores {
    const TYPE: &'static str = "io.example.chore.v1";
    type Handle = Arc<[&'static str]>;
}

/// The chore of this example: sleeping.
struct Sleep;

impl Plugin for Sleep {
    type Kind = Chores;
    const ID: &'static str = "sleep";
    type Config = ();
    type Deps = ();

    async fn init(_: InitContext, (): (), (): ()) -> Result<Arc<[&'static str]>, InitError> {
        Ok(Arc::new(["sleep", "1000000"]))
    }
}

/// A chore that no machine has; the shim runs without it.
struct Dream;

impl Plugin for Dream {
    type Kind = Chores;
    const ID: &'static str = "dream";
    type Config = ();
    type Deps = ();

    async fn init(_: InitContext, (): (), (): ()) -> Result<Arc<[&'static str]>, InitError> {
        Err(InitError::Skip("this machine does not dream".to_owned()))
    }
}

deps! { struct SleeperDeps {
    chore: One<Chores>, reaper: One<Reapers>, events: One<Publishers>, shutdown: One<Shutdowns>,
} }

/// The sandbox service as a plugin.
struct SandboxPlugin;

impl Plugin for SandboxPlugin {
    type Kind = TtrpcServices;
    const ID: &'static str = "sandbox";
    type Config = ();
    type Deps = SleeperDeps;

    async fn init(_: InitContext, (): (), deps: SleeperDeps) -> Result<Services, InitError> {
        Ok(services(Arc::new(Sleeper {
            chore: deps.chore.0,
            reaper: deps.reaper.0,
            events: deps.events.0,
            shutdown: deps.shutdown.0,
            sandboxes: Mutex::default(),
        })))
    }
}

/// The pid of a sandbox's process in its bundle, for `delete`.
const PID: &str = "sleeper.pid";

struct Sandbox {
    bundle: String,
    pid: u32,
    exit: watch::Sender<Option<Exit>>,
}

struct Sleeper {
    chore: Arc<[&'static str]>,
    reaper: Reaper,
    events: Publisher,
    shutdown: Shutdown,
    sandboxes: Mutex<BTreeMap<String, Sandbox>>,
}

impl Sleeper {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Sandbox>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: &str, use_it: impl FnOnce(&mut Sandbox) -> T) -> Result<T, Status> {
        let mut sandboxes = self.lock();
        let sandbox = sandboxes.get_mut(id).ok_or_else(|| Status::new(Code::NotFound, format!("sandbox {id}")))?;
        Ok(use_it(sandbox))
    }

    fn running(&self, id: &str) -> Result<(u32, watch::Receiver<Option<Exit>>), Status> {
        match self.with(id, |sandbox| (sandbox.pid, sandbox.exit.subscribe()))? {
            (0, _) => Err(Status::new(Code::FailedPrecondition, format!("sandbox {id} is not started"))),
            running => Ok(running),
        }
    }

    async fn ended(&self, id: &str) -> Result<Exit, Status> {
        let (_, mut exit) = self.running(id)?;
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.ok_or_else(|| Status::new(Code::NotFound, format!("sandbox {id}")))
    }
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::new(Code::Unknown, error.to_string())
}

#[async_trait]
impl Sandboxes for Sleeper {
    async fn create_sandbox(&self, request: CreateSandboxRequest) -> Result<CreateSandboxResponse, Status> {
        let sandbox = Sandbox { bundle: request.bundle_path, pid: 0, exit: watch::Sender::default() };
        if self.lock().contains_key(&request.sandbox_id) {
            return Err(Status::new(Code::AlreadyExists, format!("sandbox {}", request.sandbox_id)));
        }
        self.lock().insert(request.sandbox_id, sandbox);
        Ok(CreateSandboxResponse {})
    }

    async fn start_sandbox(&self, request: StartSandboxRequest) -> Result<StartSandboxResponse, Status> {
        let id = request.sandbox_id;
        let (bundle, exit) = self.with(&id, |sandbox| (sandbox.bundle.clone(), sandbox.exit.clone()))?;
        let mut command = Command::new(self.chore[0]);
        command.args(&self.chore[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (child, _) = self.reaper.spawn(&mut command).map_err(failed)?;
        let pid = child.pid;
        write_small(std::path::Path::new(&bundle).join(PID).as_path(), pid.to_string().as_bytes()).map_err(failed)?;
        self.with(&id, |sandbox| sandbox.pid = pid)?;
        self.events.publish("/sandboxes/start", &SandboxStart { sandbox_id: id.clone() });
        let events = self.events.clone();
        tokio::spawn(async move {
            let Exit { status: exit_status, at } = child.exit().await;
            exit.send_replace(Some(Exit { status: exit_status, at }));
            let event = SandboxExit { sandbox_id: id, exit_status, exited_at: Some(at.into()) };
            events.publish("/sandboxes/exit", &event);
        });
        Ok(StartSandboxResponse { pid, created_at: Some(SystemTime::now().into()), spec: None })
    }

    async fn stop_sandbox(&self, request: StopSandboxRequest) -> Result<StopSandboxResponse, Status> {
        let (pid, _) = self.running(&request.sandbox_id)?;
        if let Some(pid) = pid.try_into().ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::KILL).map_err(failed)?;
        }
        self.ended(&request.sandbox_id).await?;
        Ok(StopSandboxResponse {})
    }

    async fn wait_sandbox(&self, request: WaitSandboxRequest) -> Result<WaitSandboxResponse, Status> {
        let exit = self.ended(&request.sandbox_id).await?;
        Ok(WaitSandboxResponse { exit_status: exit.status, exited_at: Some(exit.at.into()) })
    }

    async fn sandbox_status(&self, request: SandboxStatusRequest) -> Result<SandboxStatusResponse, Status> {
        let (pid, ended) = self.with(&request.sandbox_id, |sandbox| (sandbox.pid, *sandbox.exit.borrow()))?;
        let ready = pid != 0 && ended.is_none();
        let state = if ready { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" }.to_owned();
        Ok(SandboxStatusResponse { sandbox_id: request.sandbox_id, pid, state, ..SandboxStatusResponse::default() })
    }

    async fn ping_sandbox(&self, request: PingRequest) -> Result<PingResponse, Status> {
        self.with(&request.sandbox_id, |_| PingResponse {})
    }

    async fn shutdown_sandbox(&self, request: ShutdownSandboxRequest) -> Result<ShutdownSandboxResponse, Status> {
        if self.running(&request.sandbox_id).is_ok_and(|(_, exit)| exit.borrow().is_none()) {
            return Err(Status::new(Code::FailedPrecondition, format!("sandbox {} runs", request.sandbox_id)));
        }
        self.lock().remove(&request.sandbox_id);
        if self.lock().is_empty() {
            self.shutdown.now();
        }
        Ok(ShutdownSandboxResponse {})
    }
}

struct SleeperShim;

impl Shim for SleeperShim {
    const NAME: &'static str = "io.example.sleeper.v1";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn plugins(&self, registry: &mut Registry) {
        registry.add::<SandboxPlugin>().add::<Dream>().add::<Sleep>();
    }

    fn delete(&self, delete: &Delete) -> Result<Deleted, Error> {
        let noted = read_small(&delete.bundle.join(PID))?;
        let pid = noted.and_then(|text| String::from_utf8(text).ok()?.trim().parse::<i32>().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { return Ok(Deleted::killed(0)) };
        let _ = kill_process(pid, Signal::KILL); // gone already
        Ok(Deleted::killed(pid.as_raw_pid().unsigned_abs()))
    }

    fn info(&self, _: &Info) -> Result<RuntimeInfo, Error> {
        Ok(RuntimeInfo { name: Self::NAME.to_owned(), ..RuntimeInfo::default() })
    }
}

fn main() -> ExitCode {
    kevel_shim::main(SleeperShim)
}
