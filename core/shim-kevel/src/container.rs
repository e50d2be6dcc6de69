//! A container: made, started, ended and removed by an OCI runtime. Its execs are in [`crate::execs`], what follows its end in
//! [`crate::exit`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kevel_cgroup::{Hierarchies, OomCounter, Place};
use kevel_model::Mount;
use kevel_mount::UnmountFlags;
use kevel_proto::{
    any::LINUX_RESOURCES,
    containerd::{
        events::{TaskCreate, TaskIo, TaskOom},
        v1::types::Status,
    },
    shim::task::CreateTaskRequest,
};
use kevel_shim::{Child, Hold, Publisher, Reaper};
use prost_types::Any;
use tokio::task::AbortHandle;

use crate::{
    checkpoint::Restore,
    error::{Error, Result},
    io::{self, For, Opened, Streams, Wanted},
    options::Options,
    process::Process,
    record,
    runtime::{Call, Runtime},
    spec,
};

/// How long a created process that is removed may take to end.
const END: Duration = Duration::from_secs(5);

/// A container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) namespace: String,
    pub(crate) runtime: Runtime,
    pub(crate) options: Options,
    pub(crate) first: Arc<Process>,
    pub(crate) execs: Mutex<BTreeMap<String, Arc<Process>>>,
    pub(crate) events: Publisher,
    /// Whether processes may outlive the first one.
    pub(crate) kills_all: bool,
    /// Where it is restored from, until it is started.
    pub(crate) restore: Mutex<Option<Restore>>,
    place: Mutex<Option<Arc<Place>>>,
    watch: Mutex<Option<AbortHandle>>,
}

/// Whose containers these are, and what they need.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) namespace: String,
    pub(crate) reaper: Reaper,
    pub(crate) events: Publisher,
}

impl Container {
    /// Makes one: up to where its program would be executed, or, with a checkpoint, up to where it would be restored.
    pub(crate) async fn create(host: &Host, request: &CreateTaskRequest) -> Result<Arc<Self>> {
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() {
            return Err(Error::Invalid(format!("bundle: {:?} is no absolute path", request.bundle)));
        }
        let options = Options::of(request.options.as_ref())?;
        let kills_all = spec::processes_outlive_the_first(&bundle)?;
        record::note_options(&bundle, &options)?;
        let wanted = Wanted {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let container = Arc::new(Self {
            id: request.id.clone(),
            runtime: Runtime::new(host.reaper.clone(), &options, &host.namespace, &bundle),
            namespace: host.namespace.clone(),
            bundle,
            options,
            first: Arc::new(Process::new(String::new(), wanted)),
            execs: Mutex::default(),
            events: host.events.clone(),
            kills_all,
            restore: Mutex::new(Restore::of(request)),
            place: Mutex::default(),
            watch: Mutex::default(),
        });
        container.mount(&request.rootfs).await?;
        if !request.checkpoint.is_empty() {
            container.tell_created(request, 0);
        } else if let Err(error) = container.make(request).await {
            container.unmount().await.unwrap_or_else(|left| tracing::warn!(error = left.chain(), "a mount is left"));
            return Err(error);
        }
        Ok(container)
    }

    fn tell_created(&self, request: &CreateTaskRequest, pid: u32) {
        let CreateTaskRequest { bundle, rootfs, stdin, stdout, stderr, terminal, checkpoint, .. } = request.clone();
        let io = Some(TaskIo { stdin, stdout, stderr, terminal });
        let event = TaskCreate { container_id: self.id.clone(), bundle, rootfs, io, checkpoint, pid };
        self.events.publish("/tasks/create", &event);
    }

    /// Runs the runtime's `create`.
    async fn make(self: &Arc<Self>, request: &CreateTaskRequest) -> Result<()> {
        let turn = self.first.turn.lock().await;
        let mut opened = io::open(&self.first.wanted, &self.streams_for(&self.id)).await?;
        let pid_file = record::pid_file(&self.bundle);
        let mut call = Call::new("create").path("--bundle", &self.bundle).path("--pid-file", &pid_file);
        if let Some(socket) = opened.socket() {
            call = call.path("--console-socket", &socket.path());
        }
        call =
            call.when(self.options.no_pivot_root, "--no-pivot").when(self.options.no_new_keyring, "--no-new-keyring");
        let held = self.runtime.hold();
        let call = call.ends(opened.take_ends()).arg(&self.id);
        if let Err(error) = self.runtime.run(call).await {
            opened.abandon().await;
            return Err(error);
        }
        let (streams, child) = self.take_over(opened, &pid_file, held).await?;
        self.first.made(child.pid, streams);
        self.look_at_cgroup(child.pid);
        self.tell_created(request, child.pid);
        tokio::spawn(self.clone().follow(self.first.clone(), child));
        drop(turn);
        Ok(())
    }

    /// Takes over the first process that the runtime has made: its streams, and its end. Removes what the runtime made when
    /// that fails.
    pub(crate) async fn take_over(&self, opened: Opened, pid_file: &Path, held: Hold) -> Result<(Streams, Child)> {
        let made = async { Ok((opened.carry().await?, self.adopt(pid_file)?)) }.await;
        drop(held);
        if made.is_err() {
            self.force_delete().await;
        }
        made
    }

    /// Takes over the process whose id a runtime wrote.
    pub(crate) fn adopt(&self, pid_file: &Path) -> Result<Child> {
        let pid = record::read_pid(pid_file)?;
        let pid = pid.ok_or_else(|| Error::Invalid(format!("the runtime wrote no {pid_file:?}")))?;
        let adopted = self.runtime.reaper().adopt(pid);
        adopted.map_err(|error| Error::system(format!("taking over process {pid}"), error))
    }

    pub(crate) fn streams_for<'a>(&'a self, id: &'a str) -> For<'a> {
        For {
            namespace: &self.namespace,
            id,
            bundle: &self.bundle,
            owner: (self.options.io_uid, self.options.io_gid),
            reaper: self.runtime.reaper(),
        }
    }

    /// Finds the container's cgroup by its first process, which is in it and has moved nowhere yet, and watches for kills
    /// for want of memory.
    pub(crate) fn look_at_cgroup(&self, pid: u32) {
        let place = match Hierarchies::of_node().and_then(|hierarchies| hierarchies.place(pid)) {
            Ok(place) => Arc::new(place),
            Err(error) => return tracing::debug!(id = self.id, %error, "the container's cgroup is unknown"),
        };
        *lock(&self.place) = Some(place.clone());
        let Some(counter) = OomCounter::of(&place) else { return };
        let mut watch = match counter.watch() {
            Ok(watch) => watch,
            Err(error) => return tracing::debug!(id = self.id, %error, "kills for want of memory are not watched"),
        };
        let (events, container_id) = (self.events.clone(), self.id.clone());
        let task = tokio::spawn(async move {
            while let Ok(Some(_)) = watch.next().await {
                events.publish("/tasks/oom", &TaskOom { container_id: container_id.clone() });
            }
        });
        *lock(&self.watch) = Some(task.abort_handle());
    }

    /// Its cgroup.
    pub(crate) fn place(&self) -> Result<Arc<Place>> {
        let place = lock(&self.place).clone();
        place.ok_or_else(|| Error::State(format!("container {} has no cgroup", self.id)))
    }

    /// Executes its program.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<u32> {
        let restore = lock(&self.restore).take();
        if let Some(restore) = restore {
            return self.restored(restore).await;
        }
        match self.first.status() {
            Status::Created => {}
            status => return Err(Error::State(format!("container {} is {}", self.id, name(status)))),
        }
        self.runtime.run(Call::new("start").arg(&self.id)).await?;
        self.first.set_status(Status::Running);
        Ok(self.first.pid())
    }

    /// Sends a signal.
    pub(crate) async fn kill(&self, signal: u32, all: bool) -> Result<()> {
        if self.first.pid() == 0 || self.first.status() == Status::Stopped && !all {
            return Err(Error::NotFound(format!("container {}: process already finished", self.id)));
        }
        let call = Call::new("kill").when(all, "--all").arg(&self.id).arg(signal.to_string());
        match self.runtime.run(call).await {
            Err(Error::Runtime { said, .. }) if is_gone(&said) => {
                Err(Error::NotFound(format!("container {}: {said}", self.id)))
            }
            result => result,
        }
    }

    /// Freezes it.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.must_be(Status::Running)?;
        self.first.set_status(Status::Pausing);
        let result = self.runtime.run(Call::new("pause").arg(&self.id)).await;
        self.first.set_status(if result.is_ok() { Status::Paused } else { Status::Running });
        result
    }

    /// Lets it run on.
    pub(crate) async fn resume(&self) -> Result<()> {
        self.must_be(Status::Paused)?;
        self.runtime.run(Call::new("resume").arg(&self.id)).await?;
        self.first.set_status(Status::Running);
        Ok(())
    }

    pub(crate) fn must_be(&self, want: Status) -> Result<()> {
        match self.first.status() {
            status if status == want => Ok(()),
            status => Err(Error::State(format!("container {} is {}, not {}", self.id, name(status), name(want)))),
        }
    }

    /// Changes what it may use.
    pub(crate) async fn update(&self, resources: Option<&Any>) -> Result<()> {
        let resources = resources.ok_or_else(|| Error::Invalid("resources: missing".to_owned()))?;
        if resources.type_url != LINUX_RESOURCES {
            return Err(Error::Invalid(format!("resources: {:?} is not {LINUX_RESOURCES}", resources.type_url)));
        }
        serde_json::from_slice::<serde_json::Map<_, _>>(&resources.value)
            .map_err(|error| Error::Invalid(format!("resources: {error}")))?;
        if self.first.status() == Status::Stopped {
            return Err(Error::State(format!("container {} has ended", self.id)));
        }
        let call = Call::new("update").arg("--resources=-").arg(&self.id).input(resources.value.clone());
        self.runtime.run(call).await
    }

    /// Removes it. It has to have ended, or never to have been started.
    pub(crate) async fn delete(&self) -> Result<()> {
        let turn = self.first.turn.lock().await;
        let created = match self.first.status() {
            Status::Stopped => false,
            Status::Created => true,
            status => return Err(Error::State(format!("cannot delete a {} process", name(status)))),
        };
        if !created {
            self.first.finish_streams().await;
        }
        let call = Call::new("delete").when(created, "--force").arg(&self.id);
        match self.runtime.run(call).await {
            Err(Error::Runtime { said, .. }) if said.contains("does not exist") => {}
            result => result?,
        }
        drop(turn); // its end is told meanwhile
        if created && self.first.pid() != 0 {
            if tokio::time::timeout(END, self.first.wait()).await.is_err() {
                return Err(Error::State(format!("process {} does not end", self.first.pid())));
            }
            self.first.finish_streams().await;
        }
        if let Some(watch) = lock(&self.watch).take() {
            watch.abort();
        }
        self.unmount().await
    }

    /// Removes what a failed creation left.
    pub(crate) async fn force_delete(&self) {
        if let Err(error) = self.runtime.run(Call::new("delete").arg("--force").arg(&self.id)).await {
            tracing::warn!(id = self.id, error = error.chain(), "a half made container is left");
        }
    }

    async fn mount(&self, mounts: &[kevel_proto::containerd::types::Mount]) -> Result<()> {
        if mounts.is_empty() {
            return Ok(());
        }
        let own = |mount: &kevel_proto::containerd::types::Mount| Mount {
            kind: mount.r#type.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        };
        let (mounts, rootfs) = (mounts.iter().map(own).collect::<Vec<_>>(), self.rootfs());
        let doing = "mounting the root file system at";
        blocking(move || {
            use std::os::unix::fs::DirBuilderExt as _;
            let made = std::fs::DirBuilder::new().mode(0o711).recursive(true).create(&rootfs);
            made.map_err(|error| Error::system(format!("making {rootfs:?}"), error))?;
            kevel_mount::all(&mounts, &rootfs).map_err(|source| Error::Mount { doing, path: rootfs, source })
        })
        .await
    }

    pub(crate) async fn unmount(&self) -> Result<()> {
        let rootfs = self.rootfs();
        blocking(move || unmount(&rootfs)).await
    }

    fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// An exec, or the first process.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.first.clone());
        }
        let found = lock(&self.execs).get(exec_id).cloned();
        found.ok_or_else(|| Error::NotFound(format!("process {exec_id} of container {}", self.id)))
    }
}

/// Unmounts a root file system, with whatever is mounted in it.
pub(crate) fn unmount(rootfs: &Path) -> Result<()> {
    if !rootfs.exists() {
        return Ok(());
    }
    let path = || rootfs.to_owned();
    let unmounted = kevel_mount::unmount_recursive(rootfs, UnmountFlags::empty())
        .or_else(|_| kevel_mount::unmount_recursive(rootfs, UnmountFlags::DETACH));
    unmounted.map_err(|source| Error::Mount { doing: "unmounting the root file system at", path: path(), source })
}

/// Runs what may block on a thread that ends soon after.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::system("blocking work", std::io::Error::other(error))))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A state in a word.
pub(crate) fn name(status: Status) -> &'static str {
    match status {
        Status::Unknown => "unknown",
        Status::Created => "created",
        Status::Running => "running",
        Status::Stopped => "stopped",
        Status::Paused => "paused",
        Status::Pausing => "pausing",
    }
}

/// Whether a runtime says that there is nobody to send a signal to.
fn is_gone(said: &str) -> bool {
    ["does not exist", "process already finished", "not running", "no such process"]
        .iter()
        .any(|part| said.contains(part))
}
