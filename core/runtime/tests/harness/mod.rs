//! What the tests share: a node of one namespace with its stores in memory, an event socket for shims, containers that
//! are small, and a look at what is left afterwards.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test helper fails its test")]
#![allow(clippy::disallowed_methods, reason = "tests look for binaries in PATH, as a user would")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures::{
    StreamExt as _,
    channel::mpsc::{UnboundedSender, unbounded},
    stream::BoxStream,
};
use kevel_contract::{
    Scope,
    call::Target,
    container::{self, Container, ContainerStore, Runtime},
    event::{self, Envelope, EventExchange},
    task::{Create, Tasks},
};
use kevel_model::{Any, Error, Filters, Mount, Namespace, Result};
use kevel_proto::shim::events::{ForwardRequest, SERVICE};
use kevel_runtime::{Daemon, Dirs, Role, RuntimeOf, ShimManager, TaskManager, Timeouts};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a test waits for a state before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Events in the order in which they arrived.
#[derive(Clone, Default)]
pub struct Bus(Arc<Mutex<Vec<Envelope>>>, Arc<Mutex<Vec<UnboundedSender<Result<Envelope>>>>>);

impl Bus {
    /// The topics of a container's events, in order; what is told of its shim is apart.
    pub fn topics(&self, id: &str) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let of = |envelope: &&Envelope| envelope.event.value.windows(id.len()).any(|part| part == id.as_bytes());
        let own = events.iter().filter(of).filter(|envelope| envelope.topic != "/shims/stuck");
        own.map(|envelope| envelope.topic.clone()).collect()
    }

    /// Waits until it was told that the shim of a container is stuck, and how far it went.
    pub async fn expect_stuck(&self, id: &str, stage: &str) {
        let seen = || {
            let events = self.0.lock().unwrap();
            let mut told = events.iter().filter(|envelope| envelope.topic == "/shims/stuck");
            told.any(|envelope| {
                let document: serde_json::Value = serde_json::from_slice(&envelope.event.value).unwrap();
                document["id"] == id && document["stage"] == stage && document["pid"].is_u64()
            })
        };
        until(seen, || format!("shim of {id}: nobody said that it is {stage}")).await;
    }

    /// Waits for the topics of a container to be these.
    pub async fn expect(&self, id: &str, topics: &[&str]) {
        let seen = || self.topics(id) == topics;
        until(seen, || format!("events of {id}: want {topics:?}, have {:?}", self.topics(id))).await;
    }
}

#[async_trait]
impl event::Backend for Bus {
    async fn publish(&self, scope: &Scope, topic: &str, event: Any) -> Result<()> {
        let (namespace, timestamp) = (scope.namespace.clone(), SystemTime::now());
        self.forward(Envelope { timestamp, namespace, topic: topic.into(), event }).await
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        self.0.lock().unwrap().push(envelope.clone());
        self.1.lock().unwrap().retain(|subscriber| subscriber.unbounded_send(Ok(envelope.clone())).is_ok());
        Ok(())
    }

    async fn subscribe(&self, filters: &Filters) -> Result<BoxStream<'static, Result<Envelope>>> {
        let (sender, events) = unbounded();
        self.1.lock().unwrap().push(sender);
        let filters = filters.clone();
        let matching = move |event: &Result<Envelope>| {
            std::future::ready(event.as_ref().is_ok_and(|envelope| filters.matches(envelope)))
        };
        Ok(events.filter(matching).boxed())
    }
}

/// The daemon's end of the event socket.
#[async_trait]
impl kevel_ttrpc::Service for Bus {
    async fn call(
        &self,
        method: &str,
        payload: bytes::Bytes,
        _: kevel_ttrpc::Context,
    ) -> std::result::Result<bytes::Bytes, kevel_ttrpc::Status> {
        assert_eq!(method, "Forward");
        kevel_ttrpc::server::unary(payload, async |request: ForwardRequest| {
            let envelope = request.envelope.unwrap();
            let event = envelope.event.unwrap();
            let event = Any::new(event.type_url, event.value);
            let namespace = Namespace::new(&envelope.namespace).unwrap();
            let timestamp = SystemTime::now();
            event::Backend::forward(self, Envelope { timestamp, namespace, topic: envelope.topic, event })
                .await
                .unwrap();
            Ok(())
        })
        .await
    }
}

/// Container records in memory.
#[derive(Clone, Default)]
pub struct Records(Arc<Mutex<BTreeMap<String, Container>>>);

#[async_trait]
impl container::Backend for Records {
    async fn get(&self, _: &Scope, id: &str) -> Result<Container> {
        self.0.lock().unwrap().get(id).cloned().ok_or_else(|| Error::not_found(format!("container {id}")))
    }

    async fn list(&self, _: &Scope, _: &Filters) -> Result<Vec<Container>> {
        Ok(self.0.lock().unwrap().values().cloned().collect())
    }

    async fn create(&self, _: &Scope, container: Container) -> Result<Container> {
        self.0.lock().unwrap().insert(container.id.clone(), container.clone());
        Ok(container)
    }

    async fn update(&self, scope: &Scope, container: Container, _: &[String]) -> Result<Container> {
        container::Backend::create(self, scope, container).await
    }

    async fn delete(&self, _: &Scope, id: &str) -> Result<()> {
        self.0.lock().unwrap().remove(id);
        Ok(())
    }
}

/// A node. Several may follow each other on the same directories, as daemons do.
pub struct Node {
    pub shims: ShimManager,
    pub tasks: Tasks,
    pub containers: ContainerStore,
    pub bus: Bus,
    pub scope: Scope,
    pub dirs: Dirs,
    pub recovery: tokio::task::JoinHandle<()>,
    _serving: DropGuard,
}

impl Node {
    /// A node below `base` that finds shims in `search_path`.
    pub async fn start(base: &Path, search_path: &[PathBuf], timeouts: Timeouts) -> Self {
        Self::start_with(base, search_path, timeouts, Records::default()).await
    }

    /// As [`Self::start`], with the records of the node before.
    pub async fn start_with(base: &Path, search_path: &[PathBuf], timeouts: Timeouts, records: Records) -> Self {
        let bus = Bus::default();
        let socket = base.join("e.ttrpc");
        let _ = fs::remove_file(&socket);
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let mut server = kevel_ttrpc::Server::new();
        server.register(SERVICE, Arc::new(bus.clone())).unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move { server.serve(listener, stopped).await });
        let daemon = Daemon {
            grpc_address: base.join("grpc.sock").display().to_string(),
            ttrpc_address: socket.display().to_string(),
            binary: "/bin/true".into(),
            search_path: search_path.to_vec(),
            env: Vec::new(),
            socket_dir: Some(base.join("s")),
            debug: false,
        };
        let events = EventExchange::new(Target::local("events"), bus.clone());
        let containers = ContainerStore::new(Target::local("containers"), records);
        let shims = ShimManager::new(daemon, timeouts, events);
        let dirs = Dirs { state: base.join("state"), root: base.join("root") };
        let runtime_of: RuntimeOf = Arc::new(|_, _| Box::pin(async { None }));
        let recovery = shims.recover(dirs.clone(), Role::Task, runtime_of).await.unwrap();
        let tasks =
            Tasks::new(Target::local("tasks"), TaskManager::new(shims.clone(), dirs.clone(), containers.clone()));
        let scope = Scope::new(Namespace::new("test").unwrap());
        Self { shims, tasks, containers, bus, scope, dirs, recovery, _serving: stop.drop_guard() }
    }

    /// Records a container.
    pub async fn record(&self, id: &str, runtime: &str, sandbox: &str, spec: serde_json::Value) {
        let mut container = Container::new(id);
        container.runtime = Runtime { name: runtime.into(), options: None };
        container.sandbox = sandbox.into();
        let spec = Any::new(kevel_proto::any::SPEC, serde_json::to_vec(&spec).unwrap());
        container.spec = Some(spec);
        self.containers.create(&self.scope, container).await.unwrap();
    }

    /// The bundle of a container.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dirs.state.join("test").join(id)
    }

    /// Fails when a bundle or a working directory is left.
    pub fn assert_clean(&self) {
        self.assert_clean_but(&[]);
    }

    /// As [`Self::assert_clean`], with names that may be left.
    pub fn assert_clean_but(&self, fine: &[&str]) {
        for dir in [&self.dirs.state, &self.dirs.root] {
            let mut left: Vec<_> =
                fs::read_dir(dir.join("test")).into_iter().flatten().flatten().map(|e| e.path()).collect();
            left.retain(|path| fine.iter().all(|fine| !path.ends_with(fine)));
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shims.close();
    }
}

/// A directory with the fake shim under a name for each mode.
pub fn shims(base: &Path, modes: &[&str]) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let fake = deps.parent().unwrap().parent().unwrap().join("examples/fake-shim");
    assert!(fake.exists(), "{fake:?} is missing; cargo build -p kevel-runtime --examples");
    let dir = base.join("bin");
    fs::create_dir_all(&dir).unwrap();
    for mode in modes {
        std::os::unix::fs::symlink(&fake, dir.join(format!("containerd-shim-{mode}-v1"))).unwrap();
    }
    dir
}

/// What a task is created from, for a root file system that is bound from elsewhere.
pub fn create(id: &str, rootfs: Option<&Path>) -> Create {
    let mount = |path: &Path| Mount {
        kind: "bind".into(),
        source: path.display().to_string(),
        options: vec!["rbind".into(), "rw".into()],
        ..Mount::default()
    };
    Create { container_id: id.into(), rootfs: rootfs.map(mount).into_iter().collect(), ..Create::default() }
}

/// Waits for a state.
pub async fn until(mut reached: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(tokio::time::Instant::now() < end, "{}", otherwise());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Processes whose command line names `text`.
pub fn processes(text: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let names = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != std::process::id() && line.windows(text.len()).any(|part| part == text.as_bytes())
    };
    pids.filter(names).collect()
}

/// Fails, after some patience, when a process or mount of the test is left.
/// `id` is text in the command lines of the processes that must be gone, and in the names of cgroups.
pub async fn assert_no_leaks(base: &Path, id: &str) {
    until(|| processes(id).is_empty(), || format!("processes of {id} are left: {:?}", processes(id))).await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left: Vec<_> = mounts.lines().filter(|line| line.contains(base.to_str().unwrap())).collect();
    assert!(left.is_empty(), "mounts are left: {left:?}");
    let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let groups = controllers.map(|dir| dir.join(format!("kevel-test-{id}"))).filter(|dir| dir.exists());
    assert_eq!(groups.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "cgroups are left");
}

/// Every executable of a name in `PATH`, in order.
pub fn in_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).filter(|path| path.is_file()).collect()
}
