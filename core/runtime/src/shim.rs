//! One connected shim, on behalf of one container or sandbox: calls with deadlines, and the moment it is gone.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use kevel_contract::trace;
use kevel_model::Namespace;
use kevel_proto::shim::{
    sandbox,
    task::{self, ConnectRequest, ConnectResponse, method},
};
use kevel_ttrpc::Code;
use prost::Message;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    Address, Bootstrap, Bundle, Error, Result,
    breaker::Breaker,
    connection::{Call, Connection},
};

/// What is tried even if the shim has not answered for long: containers have to end.
const ESSENTIAL: [&str; 7] = [
    method::CONNECT,
    method::KILL,
    method::WAIT,
    method::DELETE,
    method::SHUTDOWN,
    sandbox::method::STOP_SANDBOX,
    sandbox::method::SHUTDOWN_SANDBOX,
];

/// What a shim is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It runs a container.
    Task,
    /// It runs a sandbox, by the sandbox service.
    Sandbox,
}

impl Role {
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Sandbox => "sandbox",
        }
    }
}

/// A shim's connection for one container or sandbox. Several may lead to one shim process.
#[derive(Debug)]
pub struct Shim {
    /// The namespace of the container.
    pub namespace: Namespace,
    /// The container's or sandbox's id.
    pub id: String,
    /// What it is there for.
    pub role: Role,
    /// Its bundle.
    pub bundle: Bundle,
    /// How it is reached.
    pub bootstrap: Bootstrap,
    /// The shim's binary.
    pub binary: PathBuf,
    client: Connection,
    /// Speaks version 2 although it announced 3.
    downgraded: AtomicBool,
    /// Its shim is the sandbox controller's, who alone ends it.
    pub(crate) hosted: bool,
    pid: AtomicU32,
    /// The shim's process, so that nobody else is killed who has its number later.
    process: OnceLock<OwnedFd>,
    /// The container's first process, when it is known.
    init: AtomicU32,
    breaker: Breaker,
    /// Told when the breaker opens.
    silent: Notify,
    /// Somebody sees to it that the container ends.
    ends_soon: AtomicBool,
    /// Held while the container is ended by force.
    pub(crate) forcing: tokio::sync::Mutex<()>,
    /// Held while the container is deleted or cleaned up, so that one of the two happens, once.
    pub(crate) ending: tokio::sync::Mutex<()>,
    /// Cancelled when the container is deleted or cleaned up.
    pub(crate) gone: CancellationToken,
    /// It has been let go of, see `Table::leave`.
    pub(crate) leaving: AtomicBool,
    log: Mutex<Option<DropGuard>>,
}

/// What [`Shim::connect`] starts from.
pub(crate) struct Parts {
    pub(crate) namespace: Namespace,
    pub(crate) id: String,
    pub(crate) role: Role,
    pub(crate) bundle: Bundle,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) binary: PathBuf,
    pub(crate) log: Option<DropGuard>,
    pub(crate) hosted: bool,
}

impl Shim {
    /// Connects and asks who answers. A shim that knows only version 2 of the task API, although a newer daemon noted
    /// version 3 for it, is spoken to in version 2.
    pub(crate) async fn connect(parts: Parts, limit: Duration) -> Result<Self> {
        let Parts { namespace, id, role, bundle, bootstrap, binary, log, hosted } = parts;
        let stream = bootstrap.address.parse::<Address>()?.connect(limit).await?;
        let client = Connection::over(bootstrap.protocol, stream);
        let shim = Self {
            namespace,
            id,
            role,
            bundle,
            bootstrap,
            binary,
            client,
            downgraded: AtomicBool::new(false),
            hosted,
            pid: AtomicU32::new(0),
            process: OnceLock::new(),
            init: AtomicU32::new(0),
            breaker: Breaker::default(),
            silent: Notify::new(),
            ends_soon: AtomicBool::new(false),
            forcing: tokio::sync::Mutex::new(()),
            ending: tokio::sync::Mutex::new(()),
            gone: CancellationToken::new(),
            leaving: AtomicBool::new(false),
            log: Mutex::new(log),
        };
        shim.introduce(limit).await?;
        Ok(shim)
    }

    async fn introduce(&self, limit: Duration) -> Result<()> {
        let request = ConnectRequest { id: self.id.clone() };
        let mut answer = self.task::<_, ConnectResponse>(method::CONNECT, &request, Some(limit)).await;
        if self.version() == 3 && answer.as_ref().is_err_and(|error| is(error, Code::Unimplemented)) {
            self.downgraded.store(true, Ordering::Relaxed);
            answer = self.task(method::CONNECT, &request, Some(limit)).await;
            if answer.as_ref().is_err_and(|error| is(error, Code::Unimplemented)) {
                self.downgraded.store(false, Ordering::Relaxed); // no task service at all: a shim for sandboxes only
            }
        }
        match answer {
            Ok(answer) => {
                self.pid.store(answer.shim_pid, Ordering::Relaxed);
                self.set_init(answer.task_pid);
                let pid = i32::try_from(answer.shim_pid).ok().and_then(Pid::from_raw);
                if let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
                    let _ = self.process.set(process);
                }
            }
            // It answered; not every shim knows the container before it is created.
            Err(Error::Call { source: kevel_ttrpc::Error::Status(status), .. })
                if status.code != Code::DeadlineExceeded => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The version of the task API that is spoken.
    pub fn version(&self) -> u32 {
        if self.downgraded.load(Ordering::Relaxed) { 2 } else { self.bootstrap.version }
    }

    /// The process id of the shim, when it told.
    pub fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// The first process of the container, when it is known.
    pub(crate) fn init(&self) -> Option<u32> {
        Some(self.init.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    pub(crate) fn set_init(&self, pid: u32) {
        self.init.store(pid, Ordering::Relaxed);
    }

    /// Whether somebody sees to it that the container ends, which from now on is so.
    pub(crate) fn ends_soon(&self) -> bool {
        self.ends_soon.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn ends_no_more(&self) {
        self.ends_soon.store(false, Ordering::Relaxed);
    }

    /// Kills the shim's process; false when it is not known which one that is.
    pub(crate) fn kill(&self) -> bool {
        let Some(process) = self.process.get() else { return false };
        match pidfd_send_signal(process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => true,
            Err(error) => {
                tracing::warn!(id = self.id, pid = self.pid(), %error, "killing a shim");
                false
            }
        }
    }

    /// Calls the task service. `limit` is `None` for Wait alone.
    pub(crate) async fn task<Req, Resp>(
        &self,
        method: &'static str,
        request: &Req,
        limit: Option<Duration>,
    ) -> Result<Resp>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        let service = if self.version() == 2 { task::SERVICE_V2 } else { task::SERVICE_V3 };
        self.admit(method)?;
        self.call(service, method, request, limit).await
    }

    /// The state of the task, asked for even if the shim has not answered for long.
    pub(crate) async fn state_at_all(&self, limit: Duration) -> Result<task::StateResponse> {
        let service = if self.version() == 2 { task::SERVICE_V2 } else { task::SERVICE_V3 };
        let request = task::StateRequest { id: self.id.clone(), exec_id: String::new() };
        self.call(service, method::STATE, &request, Some(limit)).await
    }

    fn admit(&self, method: &'static str) -> Result<()> {
        if ESSENTIAL.contains(&method) {
            return Ok(());
        }
        self.breaker.admit().map_err(|silent| Error::Silent { method, id: self.id.clone(), silent })
    }

    /// Calls the sandbox service.
    pub(crate) async fn sandbox<Req, Resp>(
        &self,
        method: &'static str,
        request: &Req,
        limit: Option<Duration>,
    ) -> Result<Resp>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        self.admit(method)?;
        self.call(sandbox::SERVICE, method, request, limit).await
    }

    async fn call<Req, Resp>(
        &self,
        service: &str,
        method: &'static str,
        request: &Req,
        limit: Option<Duration>,
    ) -> Result<Resp>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        let span = trace::span(format_args!("{service}/{method}"));
        span.record("otel.kind", "client");
        span.record("object", self.id.as_str());
        let call = Call { service, method, namespace: self.namespace.as_str(), limit, trace: &trace::hand_on(&span) };
        let answer = self.client.call(call, request).instrument(span.clone()).await;
        if let Err(error) = &answer {
            trace::failed(&span, error);
        }
        if answer.as_ref().is_err_and(|error| error.code() == Code::DeadlineExceeded) {
            if self.breaker.missed() {
                tracing::warn!(id = self.id, pid = self.pid(), method, "a shim does not answer");
                self.silent.notify_one();
            }
        } else if limit.is_some() {
            // What has no limit says nothing of how fast the others are answered.
            self.breaker.answered();
        }
        answer.map_err(|source| Error::Call { method, id: self.id.clone(), source })
    }

    /// How many calls in a row were not answered in time.
    pub(crate) fn late(&self) -> u32 {
        self.breaker.misses()
    }

    /// Waits until calls are no longer answered; each time that this begins is told once.
    pub(crate) async fn fell_silent(&self) {
        self.silent.notified().await;
    }

    /// Waits until the connection is lost.
    pub(crate) async fn closed(&self) {
        self.client.closed().await;
    }

    /// Whether the connection is lost.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Ends the connection and the copying of the log.
    pub(crate) fn close(&self) {
        self.client.close();
        self.log.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Whether a call was answered with `code`.
pub(crate) fn is(error: &Error, code: Code) -> bool {
    matches!(error, Error::Call { source, .. } if source.code() == code)
}
