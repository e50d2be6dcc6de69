//! A shim for tests: no container, only the protocol, with one fault of choice. Its name chooses:
//! `containerd-shim-MODE-v1`. Tests link it under the names they need.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::zombie_processes,
    reason = "it is test code: it may panic and read what it likes"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is the protocol")]

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio, exit},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use kevel_proto::{
    containerd::{
        events::{TaskDelete, TaskExit, TaskStart},
        types::{Envelope, RuntimeInfo},
    },
    shim::{
        bootstrap::{BootstrapParams, BootstrapResult},
        events, sandbox,
        task::{self, method},
    },
};
use kevel_ttrpc::{
    CallOptions, Client, Code, Context, Server, Service, Status,
    server::{decode, encode},
};
use prost::{Message, Name};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let name = Path::new(&args[0]).file_name().unwrap().to_string_lossy().into_owned();
    let mode = name.trim_start_matches("containerd-shim-").trim_end_matches("-v1").to_owned();
    match args.last().map(String::as_str) {
        Some("start") => start(&args, &mode),
        Some("delete") => delete(),
        Some("-info") => write(&RuntimeInfo { name: mode, ..RuntimeInfo::default() }.encode_to_vec()),
        Some("serve") => serve(mode, &args[1]),
        _ => exit(64),
    }
}

fn write(bytes: &[u8]) {
    std::io::stdout().write_all(bytes).unwrap();
}

fn flag<'a>(args: &'a [String], name: &str) -> &'a str {
    args.iter().position(|arg| arg == name).map_or("", |at| &args[at + 1])
}

/// What the daemon said, thrice, has to agree.
fn check_introduction(args: &[String]) -> BootstrapParams {
    let mut stdin = Vec::new();
    std::io::stdin().take(1 << 20).read_to_end(&mut stdin).unwrap();
    let params = BootstrapParams::decode(stdin.as_slice()).unwrap();
    assert_eq!(params.instance_id, flag(args, "-id"));
    assert_eq!(params.namespace, flag(args, "-namespace"));
    assert_eq!(params.containerd_grpc_address, flag(args, "-address"));
    let env = |name| std::env::vars().find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default();
    assert_eq!(params.containerd_ttrpc_address, env("TTRPC_ADDRESS"));
    assert_eq!(params.containerd_grpc_address, env("GRPC_ADDRESS"));
    assert_eq!(env("MAX_SHIM_VERSION"), "2");
    params
}

fn start(args: &[String], mode: &str) {
    let params = check_introduction(args);
    let socket = PathBuf::from(params.socket_dir.unwrap()).join(format!("{}.sock", params.instance_id));
    match mode {
        "fails" => {
            eprintln!("cannot start today");
            exit(3);
        }
        "hangs" => std::thread::park(),
        "garbage" => return write(b"\xffwhat is this\n"),
        "future" => return reply(mode, 4, &socket),
        "nobody" => return reply(mode, 3, &socket),
        _ => {}
    }
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let mut child = Command::new(&args[0]);
    child.arg(&socket).arg("serve").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    // It says a byte when it listens.
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    reply(mode, if mode == "plain" || mode == "json" { 2 } else { 3 }, &socket);
}

fn reply(mode: &str, version: i32, socket: &Path) {
    let address = format!("unix://{}", socket.display());
    let protocol = if mode == "grpc" { "grpc" } else { "ttrpc" };
    match mode {
        "plain" => write(format!("level=info msg=\"noise first\"\n{address}\n").as_bytes()),
        "json" => write(format!(r#"{{"version":2,"address":"{address}","protocol":"ttrpc"}}"#).as_bytes()),
        _ => {
            let protocol = protocol.to_owned();
            write(&BootstrapResult { version, address, protocol, ..BootstrapResult::default() }.encode_to_vec());
        }
    }
}

fn delete() {
    std::fs::write("../deleted", "").unwrap(); // for tests that count on it, beside the bundle
    write(
        &task::DeleteResponse { pid: 42, exit_status: 137, exited_at: Some(SystemTime::now().into()) }.encode_to_vec(),
    );
}

#[tokio::main(flavor = "current_thread")]
async fn serve(mode: String, socket: &str) {
    let _ = std::fs::remove_file(socket); // of a shim before
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    write(b"!");
    std::io::stdout().flush().unwrap();
    let fake = Arc::new(Fake {
        mode,
        asleep: AtomicBool::new(false),
        tasks: Mutex::default(),
        stop: CancellationToken::new(),
    });
    let mut server = Server::new();
    let old = matches!(fake.mode.as_str(), "plain" | "json" | "downgrade");
    server.register(if old { task::SERVICE_V2 } else { task::SERVICE_V3 }, fake.clone()).unwrap();
    server.register(sandbox::SERVICE, fake.clone()).unwrap();
    server.serve(listener, fake.stop.clone()).await;
}

/// Stops the whole process, as a debugger or a stuck runtime would: it lives, keeps its connections and does nothing.
async fn freeze() {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP).unwrap();
    std::future::pending::<()>().await;
}

/// Sends an event to the daemon.
async fn forward<M: Message + Name>(topic: &str, event: &M) {
    let address = std::env::var("TTRPC_ADDRESS").unwrap();
    let event = prost_types::Any { type_url: M::full_name(), value: event.encode_to_vec() };
    let envelope = Envelope { timestamp: None, namespace: "test".into(), topic: topic.into(), event: Some(event) };
    let request = events::ForwardRequest { envelope: Some(envelope) };
    let client = Client::connect(address).await.unwrap();
    let _: () = client.call(events::SERVICE, events::method::FORWARD, &request, CallOptions::default()).await.unwrap();
}

struct Fake {
    mode: String,
    /// It has taken a kill, and answers nothing about the task any more.
    asleep: AtomicBool,
    /// Exit status of each task, once it has one.
    tasks: Mutex<BTreeMap<String, watch::Sender<Option<u32>>>>,
    stop: CancellationToken,
}

impl Fake {
    fn task(&self, id: &str) -> Result<watch::Receiver<Option<u32>>, Status> {
        let tasks = self.tasks.lock().unwrap();
        let task = tasks.get(id).ok_or_else(|| Status::new(Code::NotFound, format!("container {id}")))?;
        Ok(task.subscribe())
    }

    async fn exit(&self, id: &str) -> Result<u32, Status> {
        let mut task = self.task(id)?;
        let status = task.wait_for(Option::is_some).await.map_err(|_| Status::new(Code::NotFound, "deleted"))?;
        Ok(status.unwrap_or_default())
    }

    fn reports(&self) -> bool {
        matches!(self.mode.as_str(), "slow-report" | "no-report")
    }

    /// Says that a task is deleted, and later, if ever, that it exited.
    async fn report(&self, id: String, exit_status: u32) {
        let (container_id, exited_at) = (id.clone(), Some(SystemTime::now().into()));
        let delete = TaskDelete { container_id, pid: 42, exit_status, exited_at, id: String::new() };
        forward("/tasks/delete", &delete).await;
        if self.mode == "slow-report" {
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                let exit = TaskExit { container_id: id.clone(), id, pid: 42, exit_status, exited_at };
                forward("/tasks/exit", &exit).await;
            });
        }
    }

    fn end(&self, id: &str, status: u32) -> Result<(), Status> {
        self.task(id)?;
        self.tasks.lock().unwrap()[id].send_replace(Some(status));
        Ok(())
    }
}

#[async_trait::async_trait]
impl Service for Fake {
    async fn call(&self, name: &str, payload: Bytes, _: Context) -> Result<Bytes, Status> {
        let now = Some(SystemTime::now().into());
        Ok(match name {
            method::CONNECT => encode(&task::ConnectResponse { shim_pid: std::process::id(), ..Default::default() }),
            method::CREATE => {
                let request: task::CreateTaskRequest = decode(payload)?;
                match self.mode.as_str() {
                    "dies" => exit(9),
                    "refuses" => return Err(Status::new(Code::FailedPrecondition, "not this one")),
                    _ => {}
                }
                self.tasks.lock().unwrap().insert(request.id, watch::channel(None).0);
                encode(&task::CreateTaskResponse { pid: 42 })
            }
            method::START => {
                let request: task::StartRequest = decode(payload)?;
                self.task(&request.id)?;
                if self.reports() {
                    forward("/tasks/start", &TaskStart { container_id: request.id, pid: 42 }).await;
                }
                encode(&task::StartResponse { pid: 42 })
            }
            method::STATE => {
                if self.mode == "mute" || self.asleep.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                let request: task::StateRequest = decode(payload)?;
                let ended = *self.task(&request.id)?.borrow();
                let running = if self.mode == "stuck" { 1 } else { 2 };
                let (status, exit_status) = (if ended.is_some() { 3 } else { running }, ended.unwrap_or_default());
                encode(&task::StateResponse { id: request.id, pid: 42, status, exit_status, ..Default::default() })
            }
            method::KILL => {
                let request: task::KillRequest = decode(payload)?;
                match self.mode.as_str() {
                    "deaf" | "mute" => std::future::pending().await,
                    "frozen" => freeze().await,
                    "drowsy" => self.asleep.store(true, Ordering::Relaxed),
                    "crash" => exit(9),
                    "stuck" => return Err(Status::new(Code::Unknown, "it was not started")),
                    _ => self.end(&request.id, 128 + request.signal)?,
                }
                Bytes::new()
            }
            method::WAIT => {
                let request: task::WaitRequest = decode(payload)?;
                encode(&task::WaitResponse { exit_status: self.exit(&request.id).await?, exited_at: now })
            }
            method::PIDS if self.mode == "mute" => std::future::pending().await,
            method::PIDS => encode(&task::PidsResponse::default()),
            method::DELETE => {
                let request: task::DeleteRequest = decode(payload)?;
                match self.mode.as_str() {
                    "stuck" => return Err(Status::new(Code::FailedPrecondition, "it has not stopped")),
                    "sticky" => std::future::pending().await,
                    "icy" => freeze().await,
                    _ => {}
                }
                let exit_status = self.exit(&request.id).await?;
                self.tasks.lock().unwrap().remove(&request.id);
                if self.reports() {
                    self.report(request.id, exit_status).await;
                }
                encode(&task::DeleteResponse { pid: 42, exit_status, exited_at: now })
            }
            method::SHUTDOWN => {
                if self.tasks.lock().unwrap().is_empty() {
                    self.stop.cancel();
                }
                Bytes::new()
            }
            _ => return self.sandbox(name, payload).await,
        })
    }
}

impl Fake {
    async fn sandbox(&self, name: &str, payload: Bytes) -> Result<Bytes, Status> {
        use sandbox::method;
        let now = Some(SystemTime::now().into());
        Ok(match name {
            method::CREATE_SANDBOX => {
                let request: sandbox::CreateSandboxRequest = decode(payload)?;
                if self.mode == "refuses" {
                    return Err(Status::new(Code::FailedPrecondition, "not this one"));
                }
                self.tasks.lock().unwrap().insert(request.sandbox_id, watch::channel(None).0);
                Bytes::new()
            }
            method::START_SANDBOX => encode(&sandbox::StartSandboxResponse { pid: 7, created_at: now, spec: None }),
            method::SANDBOX_STATUS => {
                let request: sandbox::SandboxStatusRequest = decode(payload)?;
                let ready = self.task(&request.sandbox_id)?.borrow().is_none();
                let state = if ready { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" }.to_owned();
                encode(&sandbox::SandboxStatusResponse { pid: 7, state, ..Default::default() })
            }
            method::STOP_SANDBOX => {
                let request: sandbox::StopSandboxRequest = decode(payload)?;
                self.end(&request.sandbox_id, 0)?;
                Bytes::new()
            }
            method::WAIT_SANDBOX => {
                let request: sandbox::WaitSandboxRequest = decode(payload)?;
                let exit_status = self.exit(&request.sandbox_id).await?;
                encode(&sandbox::WaitSandboxResponse { exit_status, exited_at: now })
            }
            method::SHUTDOWN_SANDBOX => {
                self.stop.cancel();
                Bytes::new()
            }
            _ => return Err(Status::unimplemented(format!("method {name}"))),
        })
    }
}
