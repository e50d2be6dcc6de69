//! The protocol of shims as a daemon speaks it, on the example shim: dialects of `start`, groups, serving, events, ends.
//! Needs `sleep` in `PATH`.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use kevel_proto::{
    any,
    containerd::{runc::v1::Options, types::RuntimeInfo},
    shim::{
        bootstrap::{BootstrapParams, BootstrapResult},
        events::{ForwardRequest, SERVICE as EVENTS},
        sandbox::{self, method},
        task::{DeleteResponse, SERVICE_V2, SERVICE_V3, StateRequest},
    },
};
use kevel_ttrpc::{CallOptions, Client, Code, Context, Error, Server, Service, Status, server};
use prost::Message;
use tokio_util::sync::CancellationToken;

/// A daemon's side: bundles, the socket for events, and what arrived there.
struct Daemon {
    dir: tempfile::TempDir,
    topics: Arc<Mutex<Vec<String>>>,
    logs: Mutex<Vec<fs::File>>,
}

struct Bus(Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl Service for Bus {
    async fn call(&self, _: &str, payload: Bytes, _: Context) -> Result<Bytes, Status> {
        let envelope = server::decode::<ForwardRequest>(payload)?.envelope.unwrap();
        assert_eq!(envelope.namespace, "ns");
        self.0.lock().unwrap().push(envelope.topic);
        Ok(Bytes::new())
    }
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let topics = Arc::<Mutex<Vec<String>>>::default();
        let listener = tokio::net::UnixListener::bind(dir.path().join("d.sock.ttrpc")).unwrap();
        let mut server = Server::new();
        server.register(EVENTS, Arc::new(Bus(topics.clone()))).unwrap();
        tokio::spawn(async move { server.serve(listener, CancellationToken::new()).await });
        Self { dir, topics, logs: Mutex::default() }
    }

    fn address(&self) -> String {
        self.dir.path().join("d.sock").display().to_string()
    }

    /// A bundle as a daemon makes it, with a reader of its log.
    fn bundle(&self, id: &str, annotations: &BTreeMap<&str, &str>) -> PathBuf {
        let bundle = self.dir.path().join(id);
        fs::create_dir(&bundle).unwrap();
        let spec = serde_json::json!({ "ociVersion": "1.0.2", "annotations": annotations });
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        nix::unistd::mkfifo(&bundle.join("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let log = fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(bundle.join("log"));
        self.logs.lock().unwrap().push(log.unwrap());
        bundle
    }

    fn run(&self, bundle: &Path, words: &[&str], env: &[(&str, &str)], input: &[u8]) -> Output {
        let mut child = Command::new(shim())
            .args(words)
            .current_dir(bundle)
            .env_remove("TTRPC_ADDRESS")
            .env_remove("MAX_SHIM_VERSION")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input); // `-v` does not read it
        child.wait_with_output().unwrap()
    }

    fn flags<'a>(&'a self, id: &'a str, address: &'a str) -> Vec<&'a str> {
        vec!["-namespace", "ns", "-address", address, "-publish-binary", "/bin/false", "-id", id]
    }

    /// `start` as containerd 2.3 and later run it.
    fn start_shim(&self, bundle: &Path, id: &str) -> String {
        let address = self.address();
        let params = BootstrapParams {
            instance_id: id.into(),
            namespace: "ns".into(),
            log_level: -4,
            containerd_grpc_address: address.clone(),
            containerd_ttrpc_address: format!("{address}.ttrpc"),
            socket_dir: Some(self.dir.path().join("s").display().to_string()),
            ..BootstrapParams::default()
        };
        let words = [&self.flags(id, &address)[..], &["start"]].concat();
        let output = said(self.run(bundle, &words, &[("MAX_SHIM_VERSION", "2")], &params.encode_to_vec()));
        let result = BootstrapResult::decode(output.as_slice()).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
        result.address
    }

    async fn topics(&self, want: &[&str]) {
        until("events", || *self.topics.lock().unwrap() == want).await;
    }
}

fn shim() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let shim = test.parent().unwrap().parent().unwrap().join("examples/sandbox-shim");
    assert!(shim.exists(), "{shim:?} is missing; cargo build -p kevel-shim --examples");
    shim
}

fn said(output: Output) -> Vec<u8> {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{}: {error}", output.status);
    output.stdout
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while !reached() {
        assert!(tokio::time::Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn connect(address: &str) -> Client {
    Client::connect(address.strip_prefix("unix://").unwrap()).await.unwrap()
}

async fn call<Q: Message, A: Message + Default>(client: &Client, name: &str, request: &Q) -> Result<A, Error> {
    client.call(sandbox::SERVICE, name, request, CallOptions::timeout(Duration::from_secs(20))).await
}

fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn started(client: &Client, id: &str, bundle: &Path) -> u32 {
    let bundle_path = bundle.display().to_string();
    let create = sandbox::CreateSandboxRequest { sandbox_id: id.into(), bundle_path, ..Default::default() };
    call::<_, ()>(client, method::CREATE_SANDBOX, &create).await.unwrap();
    let start = sandbox::StartSandboxRequest { sandbox_id: id.into() };
    call::<_, sandbox::StartSandboxResponse>(client, method::START_SANDBOX, &start).await.unwrap().pid
}

async fn shut_down(client: &Client, id: &str) -> Result<(), Error> {
    call(client, method::SHUTDOWN_SANDBOX, &sandbox::ShutdownSandboxRequest { sandbox_id: id.into() }).await
}

#[tokio::test]
async fn a_shim_without_tasks_lives_and_dies() {
    let daemon = Daemon::start();
    let bundle = daemon.bundle("one", &BTreeMap::new());
    let address = daemon.start_shim(&bundle, "one");
    assert_eq!(fs::read_to_string(bundle.join("address")).unwrap(), address);
    let shim: u32 = fs::read_to_string(bundle.join("shim.pid")).unwrap().parse().unwrap();
    assert!(alive(shim));
    let score = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap();
    let (own, its): (i32, i32) = (score("self"), score(&shim.to_string()));
    assert_eq!(its, (own + 1).min(1000));

    let client = connect(&address).await;
    let pid = started(&client, "one", &bundle).await;
    assert!(alive(pid));
    let status = sandbox::SandboxStatusRequest { sandbox_id: "one".into(), verbose: false };
    let status: sandbox::SandboxStatusResponse = call(&client, method::SANDBOX_STATUS, &status).await.unwrap();
    assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_READY", pid));
    // What is not there says so: tasks, a method without an implementation, one of no service.
    for service in [SERVICE_V2, SERVICE_V3] {
        let none = client.call::<_, ()>(service, "State", &StateRequest::default(), CallOptions::default()).await;
        assert_eq!(none.unwrap_err().code(), Code::Unimplemented);
    }
    for name in [method::SANDBOX_METRICS, "Dance"] {
        let error = call::<_, ()>(&client, name, &sandbox::PingRequest::default()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{name}");
    }
    assert_eq!(shut_down(&client, "one").await.unwrap_err().code(), Code::FailedPrecondition);

    let wait = {
        let client = client.clone();
        tokio::spawn(async move {
            let wait = sandbox::WaitSandboxRequest { sandbox_id: "one".into() };
            call::<_, sandbox::WaitSandboxResponse>(&client, method::WAIT_SANDBOX, &wait).await
        })
    };
    let stop = sandbox::StopSandboxRequest { sandbox_id: "one".into(), timeout_secs: 1 };
    call::<_, ()>(&client, method::STOP_SANDBOX, &stop).await.unwrap();
    assert_eq!(wait.await.unwrap().unwrap().exit_status, 137);
    assert!(!alive(pid));
    daemon.topics(&["/sandboxes/start", "/sandboxes/exit"]).await;
    shut_down(&client, "one").await.unwrap();
    client.closed().await;
    until("the shim to end", || !alive(shim)).await;
    assert!(!Path::new(address.strip_prefix("unix://").unwrap()).exists(), "the socket stays");
}

#[tokio::test]
async fn older_daemons_are_answered_in_their_words() {
    let daemon = Daemon::start();
    let (options, address) = (any::pack(&Options::default()).encode_to_vec(), daemon.address());
    let sockets = Path::new("/run/containerd/s");
    for (id, max_version, input) in
        [("plain", None, &options[..]), ("silent", None, b""), ("json", Some(("MAX_SHIM_VERSION", "2")), &options)]
    {
        let bundle = daemon.bundle(id, &BTreeMap::new());
        let words = [&daemon.flags(id, &address)[..], &["start"]].concat();
        let env: Vec<_> = max_version.into_iter().collect();
        let output = String::from_utf8(said(daemon.run(&bundle, &words, &env, input))).unwrap();
        let reached = match max_version {
            None => output.clone(),
            Some(_) => {
                let json: serde_json::Value = serde_json::from_str(&output).unwrap();
                assert_eq!((json["version"].as_u64(), json["protocol"].as_str()), (Some(2), Some("ttrpc")));
                json["address"].as_str().unwrap().to_owned()
            }
        };
        let socket = Path::new(reached.strip_prefix("unix://").unwrap());
        assert_eq!(socket.parent().unwrap(), sockets, "{output}");
        // Events go beside the daemon's socket when the environment does not say where.
        let client = connect(&reached).await;
        started(&client, id, &bundle).await;
        until("an event", || daemon.topics.lock().unwrap().iter().any(|topic| topic == "/sandboxes/start")).await;
        daemon.topics.lock().unwrap().clear();
        let stop = sandbox::StopSandboxRequest { sandbox_id: id.into(), timeout_secs: 1 };
        call::<_, ()>(&client, method::STOP_SANDBOX, &stop).await.unwrap();
        until("the exit", || !daemon.topics.lock().unwrap().is_empty()).await;
        daemon.topics.lock().unwrap().clear();
        shut_down(&client, id).await.unwrap();
        client.closed().await;
        assert!(!socket.exists(), "{id}: the socket stays");
    }
}

#[tokio::test]
async fn a_group_shares_a_shim_and_a_dead_one_is_cleaned_up() {
    let daemon = Daemon::start();
    let group = BTreeMap::from([("io.kubernetes.cri.sandbox-id", "first")]);
    let (first, second) = (daemon.bundle("first", &group), daemon.bundle("second", &group));
    let address = daemon.start_shim(&first, "first");
    assert_eq!(daemon.start_shim(&second, "second"), address);
    let shim: i32 = fs::read_to_string(first.join("shim.pid")).unwrap().parse().unwrap();
    assert!(!second.join("shim.pid").exists());
    let client = connect(&address).await;
    let pids = [started(&client, "first", &first).await, started(&client, "second", &second).await];

    let dead = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(dead, rustix::process::Signal::KILL).unwrap();
    client.closed().await;
    let grpc = daemon.address();
    for (id, bundle, pid) in [("second", None, pids[1]), ("first", Some(first.display().to_string()), pids[0])] {
        // The working directory may be that of another one of the group.
        let mut words = daemon.flags(id, &grpc);
        words.extend(bundle.iter().flat_map(|bundle| ["-bundle", bundle]));
        words.push("delete");
        let output = said(daemon.run(&first, &words, &[], b""));
        let deleted = DeleteResponse::decode(output.as_slice()).unwrap();
        assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
        until("the process to end", || !alive(pid)).await;
    }
    assert!(!Path::new(address.strip_prefix("unix://").unwrap()).exists(), "the dead shim's socket stays");

    // A signal ends the shim, and not what it has started.
    let address = daemon.start_shim(&second, "second");
    let client = connect(&address).await;
    let pid = started(&client, "second", &second).await;
    let shim: i32 = fs::read_to_string(second.join("shim.pid")).unwrap().parse().unwrap();
    let living = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(living, rustix::process::Signal::TERM).unwrap();
    client.closed().await;
    until("the shim to end", || !alive(shim.unsigned_abs())).await;
    assert!(alive(pid));
    let orphan = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(orphan, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn mistakes_are_told_and_leave_nothing() {
    let daemon = Daemon::start();
    let bundle = daemon.bundle("one", &BTreeMap::new());
    let info = RuntimeInfo::decode(said(daemon.run(&bundle, &["-info"], &[], b"")).as_slice()).unwrap();
    assert_eq!(info.name, "io.example.sleeper.v1");
    let version = String::from_utf8(said(daemon.run(&bundle, &["-v"], &[], b""))).unwrap();
    assert!(version.starts_with("sandbox-shim:\n") && version.contains("Version: "), "{version}");

    let address = daemon.address();
    let other = BootstrapParams {
        instance_id: "two".into(),
        containerd_grpc_address: address.clone(),
        ..BootstrapParams::default()
    };
    let start = [&daemon.flags("one", &address)[..], &["start"]].concat();
    for (words, input, part) in [
        (&start[..], &other.encode_to_vec()[..], "instance_id is \"two\""),
        (&start, b"\xff\xff", "neither of both forms"),
        (&["-id", "one", "start"], b"", "-namespace"),
        (&["-namespace", "ns", "-id", "one"], b"", "descriptor 3"),
    ] {
        let output = daemon.run(&bundle, words, &[], input);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(part), "{words:?}: {error}");
        assert!(output.stdout.is_empty());
    }
    fs::write(bundle.join("config.json"), "{").unwrap();
    let output = daemon.run(&bundle, &start, &[], b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("config.json"));
    assert!(!bundle.join("address").exists() && !bundle.join("shim.pid").exists());
}
