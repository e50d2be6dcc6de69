//! A shim of the test's own, with a bundle, a socket for its events, and a look at what is left.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
pub(crate) use kevel_proto::containerd::v1::types::Status as State;
use kevel_proto::{
    any,
    containerd::{
        events::{TaskExit, TaskOom},
        types::Mount,
    },
    shim::{
        bootstrap::{BootstrapParams, BootstrapResult},
        events::{ForwardRequest, SERVICE as EVENTS},
        task::{self, method},
    },
};
use kevel_ttrpc::{CallOptions, Client, Context, Error, Server, Service, Status, server};
use prost::Message;
use prost_types::Any;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

struct Bus(Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl Service for Bus {
    async fn call(&self, _: &str, payload: Bytes, _: Context) -> Result<Bytes, Status> {
        let envelope = server::decode::<ForwardRequest>(payload)?.envelope.unwrap();
        let event = envelope.event.unwrap();
        let topic = match any::unpack::<TaskExit>(&event) {
            Ok(exit) => format!("{} {}", envelope.topic, exit.id),
            Err(_) => {
                assert!(envelope.topic != "/tasks/oom" || any::is::<TaskOom>(&event));
                envelope.topic
            }
        };
        self.0.lock().unwrap().push(topic);
        Ok(Bytes::new())
    }
}

/// A shim and the one container that it is for.
pub(crate) struct Shim {
    dir: tempfile::TempDir,
    pub(crate) id: String,
    client: Client,
    pid: u32,
    topics: Arc<Mutex<Vec<String>>>,
    readers: RefCell<BTreeMap<String, fs::File>>,
    _log: fs::File,
}

impl Shim {
    pub(crate) async fn start(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = format!("{name}-{}", std::process::id());
        let topics = Arc::<Mutex<Vec<String>>>::default();
        let listener = tokio::net::UnixListener::bind(dir.path().join("e.ttrpc")).unwrap();
        let mut server = Server::new();
        server.register(EVENTS, Arc::new(Bus(topics.clone()))).unwrap();
        tokio::spawn(async move { server.serve(listener, CancellationToken::new()).await });
        let bundle = dir.path().join(&id);
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        rootfs(&dir.path().join("img"));
        nix::unistd::mkfifo(&bundle.join("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let log = nonblocking().read(true).write(true).open(bundle.join("log")).unwrap();
        let (client, pid) = launch(dir.path(), &bundle, &id).await;
        Self { dir, id, client, pid, topics, readers: RefCell::default(), _log: log }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join(&self.id)
    }

    /// Writes the spec, with a process namespace of the container's own.
    pub(crate) fn spec(&self, process: &Value, resources: Value) {
        self.spec_with(process, resources, &["pid", "ipc", "uts", "mount"]);
    }

    pub(crate) fn spec_with(&self, process: &Value, resources: Value, namespaces: &[&str]) {
        let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
        let mount = |kind: &str, at: &str| json!({ "destination": at, "type": kind, "source": kind });
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": process,
            "root": { "path": "rootfs" },
            "mounts": [mount("proc", "/proc"), mount("tmpfs", "/dev"), mount("devpts", "/dev/pts")],
            "linux": {
                "namespaces": namespaces,
                "resources": resources,
                "cgroupsPath": format!("/kevel-test-{}", self.id),
            },
        });
        fs::write(self.bundle().join("config.json"), spec.to_string()).unwrap();
    }

    pub(crate) fn fifo(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path.display().to_string()
    }

    /// A FIFO for output, open for reading from the beginning, as daemons have it.
    pub(crate) fn output(&self, name: &str) -> String {
        let path = self.fifo(name);
        let reader = nonblocking().read(true).open(&path).unwrap();
        self.readers.borrow_mut().insert(path.clone(), reader);
        path
    }

    /// What the container is made from, without streams.
    pub(crate) fn create_request(&self) -> task::CreateTaskRequest {
        let source = self.dir.path().join("img").display().to_string();
        let options = ["rbind", "rw"].map(str::to_owned).to_vec();
        let mount = Mount { r#type: "bind".into(), source, options, ..Mount::default() };
        task::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle().display().to_string(),
            rootfs: vec![mount],
            ..Default::default()
        }
    }

    pub(crate) fn exec_request(&self, exec_id: &str, process: &Value) -> task::ExecProcessRequest {
        let spec = Some(Any { type_url: any::PROCESS.to_owned(), value: process.to_string().into_bytes() });
        task::ExecProcessRequest { id: self.id.clone(), exec_id: exec_id.into(), spec, ..Default::default() }
    }

    pub(crate) async fn call<Q: Message, A: Message + Default>(&self, name: &str, request: &Q) -> Result<A, Error> {
        // Both versions are the same service.
        let service = if name.len().is_multiple_of(2) { task::SERVICE_V2 } else { task::SERVICE_V3 };
        self.client.call(service, name, request, CallOptions::timeout(PATIENCE)).await
    }

    pub(crate) async fn create(&self, request: task::CreateTaskRequest) -> Result<u32, Error> {
        self.call::<_, task::CreateTaskResponse>(method::CREATE, &request).await.map(|answer| answer.pid)
    }

    pub(crate) async fn start_task(&self, exec_id: &str) -> Result<u32, Error> {
        let request = task::StartRequest { id: self.id.clone(), exec_id: exec_id.into() };
        self.call::<_, task::StartResponse>(method::START, &request).await.map(|answer| answer.pid)
    }

    pub(crate) async fn state(&self, exec_id: &str) -> task::StateResponse {
        let request = task::StateRequest { id: self.id.clone(), exec_id: exec_id.into() };
        self.call(method::STATE, &request).await.unwrap()
    }

    pub(crate) async fn wait(&self, exec_id: &str) -> task::WaitResponse {
        let request = task::WaitRequest { id: self.id.clone(), exec_id: exec_id.into() };
        self.call(method::WAIT, &request).await.unwrap()
    }

    pub(crate) async fn kill(&self, exec_id: &str, signal: u32) -> Result<(), Error> {
        let request = task::KillRequest { id: self.id.clone(), exec_id: exec_id.into(), signal, all: false };
        self.call(method::KILL, &request).await
    }

    pub(crate) async fn delete(&self, exec_id: &str) -> Result<task::DeleteResponse, Error> {
        let request = task::DeleteRequest { id: self.id.clone(), exec_id: exec_id.into() };
        self.call(method::DELETE, &request).await
    }

    pub(crate) async fn shutdown(&self) {
        let request = task::ShutdownRequest { id: self.id.clone(), now: false };
        self.call::<_, ()>(method::SHUTDOWN, &request).await.unwrap();
    }

    /// Topics of events so far, those of exits with whose.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.topics.lock().unwrap().clone()
    }

    /// Reads a FIFO until a text has come, and answers everything; the FIFO stays open for the next time.
    pub(crate) async fn read_until(&self, fifo: &str, text: &str) -> String {
        let mut said = String::new();
        let mut reader = self.readers.borrow_mut().remove(fifo).unwrap();
        until(&format!("{text:?} in {fifo}"), || {
            let mut buffer = [0; 1024];
            if let Ok(count) = reader.read(&mut buffer) {
                said.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            said.contains(text)
        })
        .await;
        self.readers.borrow_mut().insert(fifo.to_owned(), reader);
        said
    }

    /// Ends the shim; nothing may be left.
    pub(crate) async fn end(&self) {
        self.shutdown().await;
        self.client.closed().await;
        let mark = self.dir.path().display().to_string();
        let left = || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let mut left: Vec<_> = mounts.lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect();
            left.extend(processes(&self.id, &mark));
            let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
            let groups = controllers.map(|dir| dir.join(format!("kevel-test-{}", self.id)));
            left.extend(groups.filter(|dir| dir.exists()).map(|dir| dir.display().to_string()));
            left
        };
        until("nothing to be left", || left().is_empty()).await;
        assert!(!Path::new(&format!("/proc/{}/exe", self.pid)).exists());
    }
}

/// Processes whose command line or root carries the container's marks.
fn processes(id: &str, mark: &str) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let carries = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        *pid != std::process::id()
            && (line.contains(id) || line.contains(mark) || groups.contains(&format!("kevel-test-{id}")))
    };
    pids.filter(carries).map(|pid| format!("process {pid}")).collect()
}

async fn launch(dir: &Path, bundle: &Path, id: &str) -> (Client, u32) {
    let address = dir.join("d.sock").display().to_string();
    let params = BootstrapParams {
        instance_id: id.into(),
        namespace: "ns".into(),
        containerd_grpc_address: address.clone(),
        containerd_ttrpc_address: dir.join("e.ttrpc").display().to_string(),
        socket_dir: Some(dir.join("s").display().to_string()),
        ..BootstrapParams::default()
    };
    fs::write(bundle.join("config.json"), "{}").unwrap();
    let words = ["-namespace", "ns", "-address", &address, "-id", id, "start"];
    let output = run_in(bundle, &words, &params.encode_to_vec());
    let result = BootstrapResult::decode(output.as_slice()).unwrap();
    let client = Client::connect(result.address.strip_prefix("unix://").unwrap()).await.unwrap();
    let request = task::ConnectRequest { id: id.into() };
    let answer: task::ConnectResponse =
        client.call(task::SERVICE_V3, method::CONNECT, &request, CallOptions::timeout(PATIENCE)).await.unwrap();
    assert_eq!(fs::read_to_string(bundle.join("shim.pid")).unwrap(), answer.shim_pid.to_string());
    (client, answer.shim_pid)
}

/// Runs the shim's program; answers what it said.
pub(crate) fn run(words: &[&str], input: &[u8]) -> Vec<u8> {
    run_in(Path::new("/"), words, input)
}

fn run_in(dir: &Path, words: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_containerd-shim-kevel-v1"));
    command.args(words).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A process that runs a script.
pub(crate) fn script_of(script: &str) -> Value {
    json!({
        "user": { "uid": 0, "gid": 0 },
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
    })
}

fn rootfs(root: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let busybox = std::env::split_paths(&path).map(|dir| dir.join("busybox")).find(|path| path.is_file());
    let busybox = busybox.expect("busybox is not in PATH; install busybox-static");
    for dir in ["bin", "proc", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "true", "cat", "stty", "head", "tr", "dmesg"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

fn nonblocking() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options
}

/// Waits for a state.
pub(crate) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(tokio::time::Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
