//! Containers: created, started, joined by further processes, stopped, removed.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Hook as HookSpec, LinuxResources, Process as ProcessSpec, Spec};
use rustix::{
    fs::MemfdFlags,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions},
};
use serde::{Deserialize, Serialize};

use crate::{
    Options,
    cgroup::{Cgroup, Layout},
    child::What,
    error::{Error, Result},
    launch::{self, Launched},
    plan, seal,
};

/// Makes containers. One per process; the process has one thread, and runs sealed ([`seal::seal`]).
#[derive(Debug)]
pub struct Engine {
    layout: Layout,
}

/// What must be kept of a container to find it again from another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: String,
    /// Where its files are.
    pub bundle: PathBuf,
    /// Its process.
    pub pid: i32,
    /// When that began, in clock ticks, so that a later process of the same number is not mistaken for it.
    pub start_time: u64,
    /// It was told to run its program.
    pub started: bool,
    cgroup: Cgroup,
    spec: Spec,
}

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It waits for its start.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl Status {
    /// As the standard writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// The code that a shell would show.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// What is known of it.
    pub record: Record,
    pidfd: Option<OwnedFd>,
    waiting: Option<(OwnedFd, Vec<(String, &'static str)>)>,
    console: Option<OwnedFd>,
}

/// A further process in a container.
#[derive(Debug)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Its terminal, if it has one.
    pub console: Option<OwnedFd>,
}

impl Engine {
    /// An engine.
    ///
    /// # Errors
    ///
    /// The process has several threads, is not sealed, or there are no cgroups.
    pub fn new() -> Result<Self> {
        if !seal::is_sealed()? {
            let source = io::Error::other("this program's file could be written to by a container; call seal first");
            return Err(Error::system("begin", source));
        }
        let threads = fs::read_dir("/proc/self/task").map_err(|err| Error::system("count the threads", err))?.count();
        if threads != 1 {
            return Err(Error::system("begin", io::Error::other(format!("this process has {threads} threads"))));
        }
        Ok(Self { layout: Layout::read()? })
    }

    /// Creates a container: all of it is there, but its program does not run yet.
    ///
    /// # Errors
    ///
    /// The field of the spec that can't be honoured; then nothing is left of the container.
    pub fn create(&self, id: &str, bundle: &Path, spec: &Spec, mut options: Options) -> Result<Container> {
        check_id(id)?;
        let bundle = fs::canonicalize(bundle)
            .map_err(|err| Error::failed("bundle", format!("find {}", bundle.display()), err))?;
        let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("linux", "is missing"))?;
        check_hooks(id, &bundle, spec)?;
        let cgroup = Cgroup::make(&self.layout, linux.cgroups_path().as_deref(), id)?;
        let request = plan::Request {
            id,
            bundle: &bundle,
            spec,
            linux,
            options: &mut options,
            layout: &self.layout,
            cgroup: &cgroup,
        };
        let made = make(request);
        let launched = made.inspect_err(|_| {
            let _the_first_error_counts = cgroup.kill();
            let _the_first_error_counts = cgroup.remove();
        })?;
        let start_time = start_time(launched.pid).unwrap_or(0);
        let record = Record {
            id: id.to_owned(),
            bundle,
            pid: launched.pid,
            start_time,
            started: false,
            cgroup,
            spec: spec.clone(),
        };
        let Launched { pidfd, socket, console, fields, .. } = launched;
        Ok(Container { record, pidfd: Some(pidfd), waiting: Some((socket, fields)), console })
    }

    /// Starts a further process in a running container.
    ///
    /// # Errors
    ///
    /// The container does not run, or the field of the process that can't be honoured.
    pub fn exec(&self, container: &Container, process: &ProcessSpec, mut options: Options) -> Result<Process> {
        match container.status()? {
            Status::Running | Status::Created => {}
            other => return Err(Error::State { state: other.as_str(), verb: "run a process" }),
        }
        let record = &container.record;
        let target = plan::Target { pid: record.pid, spec: &record.spec, cgroup: &record.cgroup };
        let plan = plan::process(&target, process, &mut options)?;
        let directory = record.cgroup.directory()?;
        let mut launched = launch::launch(&plan, directory.as_ref().map(|dir| dir.as_fd()), &mut |_| Ok(()))?;
        let console = launched.console.take();
        let (pid, pidfd) = launched.start()?;
        Ok(Process { pid, pidfd, console })
    }
}

/// Everything that can fail once the cgroup is there.
fn make(request: plan::Request<'_>) -> Result<Launched> {
    let (id, bundle, spec, cgroup) = (request.id, request.bundle, request.spec, request.cgroup);
    let mut resources = request.linux.resources().clone().unwrap_or_default();
    if resources.devices().is_none() {
        // Without a word about devices a container has those that every container has.
        resources.set_devices(Some(Vec::new()));
    }
    let plan = plan::container(request)?;
    cgroup.apply(&resources)?;
    let directory = cgroup.directory()?;
    launch::launch(&plan, directory.as_ref().map(|dir| dir.as_fd()), &mut |pid| runtime_hooks(id, bundle, spec, pid))
}

fn check_id(id: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > 1024 || !id.chars().all(good) || id == "." || id == ".." {
        return Err(Error::invalid("id", format!("{id:?} is no name for a container")));
    }
    Ok(())
}

/// Hooks that run later are looked at now.
fn check_hooks(id: &str, bundle: &Path, spec: &Spec) -> Result<()> {
    for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        for (at, hook) in of_name(spec, name).iter().enumerate() {
            plan::hook(hook, &format!("hooks.{name}[{at}]"), id, bundle, spec, "creating")?;
        }
    }
    Ok(())
}

fn of_name<'a>(spec: &'a Spec, name: &str) -> &'a [HookSpec] {
    let Some(hooks) = spec.hooks() else { return &[] };
    let list = match name {
        "prestart" => hooks.prestart(),
        "createRuntime" => hooks.create_runtime(),
        "createContainer" => hooks.create_container(),
        "startContainer" => hooks.start_container(),
        "poststart" => hooks.poststart(),
        _ => hooks.poststop(),
    };
    list.as_deref().unwrap_or_default()
}

fn runtime_hooks(id: &str, bundle: &Path, spec: &Spec, pid: i32) -> Result<()> {
    for name in ["prestart", "createRuntime"] {
        for (at, hook) in of_name(spec, name).iter().enumerate() {
            run_hook(hook, &format!("hooks.{name}[{at}]"), id, bundle, spec, ("creating", pid))?;
        }
    }
    Ok(())
}

/// Runs one hook in the runtime's namespaces.
fn run_hook(
    hook: &HookSpec,
    field: &str,
    id: &str,
    bundle: &Path,
    spec: &Spec,
    (status, pid): (&str, i32),
) -> Result<()> {
    const MOST: usize = 4096;
    let prepared = plan::hook(hook, field, id, bundle, spec, status)?;
    let output = rustix::fs::memfd_create(c"output", MemfdFlags::CLOEXEC)
        .map_err(|err| Error::failed(field, "make a file", err))?;
    let Err(fail) = prepared.run(pid, Some(output.as_fd())) else { return Ok(()) };
    let mut text = vec![0; MOST];
    let read = rustix::io::pread(&output, &mut text[..], 0).unwrap_or(0);
    let said = String::from_utf8_lossy(&text[..read]).trim().to_owned();
    let mut outcome = match fail.what {
        What::HookCode => format!("failed with code {}", fail.number),
        What::HookSignal => format!("was killed by signal {}", fail.number),
        What::HookTimeout => "took too long".to_owned(),
        _ => return Err(Error::failed(field, "run the hook", rustix::io::Errno::from_raw_os_error(fail.number))),
    };
    if !said.is_empty() {
        outcome.push_str(&format!(": {said}"));
    }
    Err(Error::Hook { field: field.to_owned(), path: hook.path().display().to_string(), outcome })
}

/// When a process began; `None` if there is none, or it is a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain any.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Container {
    /// Takes a container up again that another process, or this one before, has made.
    #[must_use]
    pub fn from_record(record: Record) -> Self {
        let pidfd = Pid::from_raw(record.pid)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
            // It may have ended and its number be another's by now.
            .filter(|_| start_time(record.pid) == Some(record.start_time));
        Self { record, pidfd, waiting: None, console: None }
    }

    /// Readable when the container's process has ended.
    #[must_use]
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// The terminal, once.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// Lets the program run. Returns what went wrong with hooks after that, which the container does not suffer from.
    ///
    /// # Errors
    ///
    /// It is not waiting, or the program can't be run; then the container is stopped.
    pub fn start(&mut self) -> Result<Vec<Error>> {
        let Some((socket, fields)) = self.waiting.take() else {
            return Err(Error::State { state: self.status()?.as_str(), verb: "start" });
        };
        launch::begin(socket.as_fd(), self.record.pid, &fields)?;
        Ok(self.started())
    }

    /// Notes that the program runs (its start was by the gate), and runs the hooks for that.
    pub fn started(&mut self) -> Vec<Error> {
        self.record.started = true;
        self.hooks("poststart", ("running", self.record.pid))
    }

    fn hooks(&self, name: &str, state: (&str, i32)) -> Vec<Error> {
        let record = &self.record;
        let run = |(at, hook)| {
            run_hook(hook, &format!("hooks.{name}[{at}]"), &record.id, &record.bundle, &record.spec, state).err()
        };
        of_name(&record.spec, name).iter().enumerate().filter_map(run).collect()
    }

    /// How it is.
    ///
    /// # Errors
    ///
    /// Its cgroup can't be read.
    pub fn status(&self) -> Result<Status> {
        if start_time(self.record.pid) != Some(self.record.start_time) {
            return Ok(Status::Stopped);
        }
        if self.record.cgroup.frozen()? {
            return Ok(Status::Paused);
        }
        Ok(if self.record.started { Status::Running } else { Status::Created })
    }

    /// The state in the form of the standard.
    ///
    /// # Errors
    ///
    /// As [`Container::status`].
    pub fn state(&self) -> Result<serde_json::Value> {
        let status = self.status()?;
        let mut state = serde_json::json!({
            "ociVersion": self.record.spec.version(),
            "id": self.record.id,
            "status": status.as_str(),
            "pid": if status == Status::Stopped { 0 } else { self.record.pid },
            "bundle": self.record.bundle,
        });
        if let Some(annotations) = self.record.spec.annotations().as_ref().filter(|some| !some.is_empty()) {
            state["annotations"] = serde_json::json!(annotations);
        }
        Ok(state)
    }

    /// Sends a signal to the container's process, or to all of its processes.
    ///
    /// # Errors
    ///
    /// It has ended, or the kernel refuses.
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        let number =
            Signal::from_named_raw(signal).ok_or_else(|| Error::invalid("signal", format!("{signal} is no signal")))?;
        let failed = |err: io::Error| Error::system(format!("send signal {signal}"), err);
        if all {
            if number == Signal::KILL {
                return self.record.cgroup.kill().map_err(failed);
            }
            for pid in self.record.cgroup.pids().map_err(failed)?.into_iter().filter_map(Pid::from_raw) {
                match rustix::process::kill_process(pid, number) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(err) => return Err(failed(err.into())),
                }
            }
            return Ok(());
        }
        match &self.pidfd {
            Some(pidfd) if self.status()? != Status::Stopped => {
                rustix::process::pidfd_send_signal(pidfd, number).map_err(|err| failed(err.into()))
            }
            _ => Err(Error::State { state: "stopped", verb: "kill" }),
        }
    }

    /// Freezes all processes.
    ///
    /// # Errors
    ///
    /// It does not run, or the kernel does not freeze it in time.
    pub fn pause(&self) -> Result<()> {
        match self.status()? {
            Status::Running | Status::Created => self.record.cgroup.freeze(true),
            other => Err(Error::State { state: other.as_str(), verb: "pause" }),
        }
    }

    /// Lets all processes go on.
    ///
    /// # Errors
    ///
    /// It is not paused.
    pub fn resume(&self) -> Result<()> {
        match self.status()? {
            Status::Paused => self.record.cgroup.freeze(false),
            other => Err(Error::State { state: other.as_str(), verb: "resume" }),
        }
    }

    /// Changes limits; what is not there stays.
    ///
    /// # Errors
    ///
    /// The field that can't be set. Those before it are set already.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        if self.status()? == Status::Stopped {
            return Err(Error::State { state: "stopped", verb: "update" });
        }
        self.record.cgroup.apply(resources)
    }

    /// Every process of the container.
    ///
    /// # Errors
    ///
    /// Its cgroup can't be read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.record.cgroup.pids().map_err(|err| Error::system("list the processes", err))
    }

    /// Waits until the container's process has ended; `None` if it is not a child of this process.
    #[must_use]
    pub fn wait(&self) -> Option<Exit> {
        wait(self.pidfd.as_ref()?)
    }

    /// Removes the container: kills what is left in its cgroup (if it still runs, only with `force`), removes that, and
    /// runs the hooks for it. Returns what went wrong with those.
    ///
    /// # Errors
    ///
    /// It runs, or its cgroup does not go.
    pub fn delete(&mut self, force: bool) -> Result<Vec<Error>> {
        match self.status()? {
            Status::Stopped => {}
            // Never started, it ends when nobody is there to start it.
            Status::Created => self.end()?,
            _ if force => self.end()?,
            other => return Err(Error::State { state: other.as_str(), verb: "delete" }),
        }
        self.record.cgroup.kill().map_err(|err| Error::system("kill the rest", err))?;
        self.record.cgroup.remove()?;
        Ok(self.hooks("poststop", ("stopped", 0)))
    }

    fn end(&mut self) -> Result<()> {
        self.waiting = None;
        self.record.cgroup.kill().map_err(|err| Error::system("kill the container", err))?;
        let Some(pidfd) = &self.pidfd else { return Ok(()) };
        let failed = |err: rustix::io::Errno| Error::system("wait for the container's end", err);
        let _by_the_cgroup_already = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        let mut fds = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None)).map_err(failed)?;
        Ok(())
    }
}

impl Process {
    /// Waits for its end; `None` if it is not a child of this process.
    #[must_use]
    pub fn wait(&self) -> Option<Exit> {
        wait(&self.pidfd)
    }
}

fn wait(pidfd: &OwnedFd) -> Option<Exit> {
    let status =
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))
            .ok()??;
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}
