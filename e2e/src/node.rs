//! A daemon of the test's own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use kevel_proto::runtime::v1::{
    LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use tonic::transport::Channel;

use crate::{
    leak::{self, Leaks},
    patience, program, wait,
};

/// What a node is started with beside the defaults of the harness.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Lines before the tables, such as `disabled_plugins`.
    pub top: String,
    /// Lines added to the configuration, whose last table before them is that of the CNI.
    pub config: String,
    /// `config_path` of the registries: a directory of `hosts.toml` files.
    pub hosts_dir: String,
    /// The image of sandboxes.
    pub sandbox_image: String,
    /// Lines added to the table of NRI.
    pub nri: String,
    /// A directory in which the daemon looks for programs first.
    pub programs: Option<PathBuf>,
    /// Another build of the daemon, by its path in the build directory.
    pub daemon: Option<&'static str>,
}

/// A running daemon with directories of its own. Ended, and everything it made removed, when dropped.
pub struct Node {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    env: Vec<(String, String)>,
    subnet: String,
    programs: Option<PathBuf>,
    program: &'static str,
}

impl Node {
    /// Starts a daemon and waits until it answers.
    pub fn start(options: &NodeOptions) -> anyhow::Result<Self> {
        Self::start_in(Self::directory()?, options)
    }

    /// A directory for [`Node::start_in`].
    pub fn directory() -> anyhow::Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("kevel-e2e-").tempdir()?)
    }

    /// Starts a daemon in a directory in which other things have their sockets already.
    pub fn start_in(dir: tempfile::TempDir, options: &NodeOptions) -> anyhow::Result<Self> {
        let mut node = Self::prepare_in(dir, options)?;
        node.launch()?;
        Ok(node)
    }

    /// Directories and configuration of a daemon; [`Node::launch`] starts it.
    pub fn prepare(options: &NodeOptions) -> anyhow::Result<Self> {
        Self::prepare_in(Self::directory()?, options)
    }

    fn prepare_in(dir: tempfile::TempDir, options: &NodeOptions) -> anyhow::Result<Self> {
        let (programs, program) = (options.programs.clone(), options.daemon.unwrap_or(DAEMON));
        let node = Self { dir, daemon: None, env: Vec::new(), subnet: subnet(), programs, program };
        fs::write(node.path("config.toml"), node.config(options))?;
        Ok(node)
    }

    /// Sets a variable for the daemon, from its next start on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// A path below the node's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The gRPC socket.
    pub fn socket(&self) -> PathBuf {
        self.path("state/kevel.sock")
    }

    /// What only this node's processes, mounts and cgroups carry in their names.
    pub fn mark(&self) -> String {
        self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What a pod of that name is made from at least: below the cgroup that carries the mark, with logs beside the node's own
    /// directories.
    pub fn pod(&self, name: &str) -> PodSandboxConfig {
        let linux = LinuxPodSandboxConfig { cgroup_parent: format!("/{}", self.mark()), ..Default::default() };
        PodSandboxConfig {
            metadata: Some(pod_metadata(name)),
            log_directory: self.path("logs").display().to_string(),
            linux: Some(linux),
            ..Default::default()
        }
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// What the daemon logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("keveld.log")).unwrap_or_default()
    }

    /// Starts the daemon on the node's directories, after [`Node::kill`] or [`Node::stop`].
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.path("keveld.log"))?;
        let shim = program::find("containerd-shim-runc-v2")?;
        let own = self.programs.iter().map(PathBuf::as_path);
        let path = std::env::join_paths(own.chain([shim.parent().context("folder")?]))?;
        #[expect(clippy::disallowed_methods, reason = "the daemon under test finds runc as a daemon does")]
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let mut search = path;
        search.push(":");
        search.push(inherited);
        search.push(":/usr/sbin:/usr/bin:/sbin:/bin");
        let child = Command::new(built(self.program)?)
            .arg("--config")
            .arg(self.path("config.toml"))
            .env("PATH", search)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting keveld")?;
        self.daemon = Some(child);
        let ready = wait::until("keveld to be ready", || {
            let exited = self.daemon.as_mut().and_then(|child| child.try_wait().ok().flatten());
            match exited {
                Some(status) => Some(Err(status)),
                None => std::os::unix::net::UnixStream::connect(self.socket()).is_ok().then_some(Ok(())),
            }
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("keveld ended with {status}:\n{}", self.log()),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// Ends the daemon as an operator does and answers its exit code.
    pub fn stop(&mut self) -> anyhow::Result<i32> {
        let mut child = self.daemon.take().context("the daemon does not run")?;
        program::run(Path::new("/bin/kill"), &["-TERM", &child.id().to_string()])?.ok()?;
        let status = wait::until("keveld to stop", || child.try_wait().ok().flatten());
        if status.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        Ok(status?.code().unwrap_or(128))
    }

    /// Ends the daemon with SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.daemon.take().context("the daemon does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Runs containerd's `ctr` against the node and answers what it printed, if it succeeded.
    pub fn ctr(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = program::ctr(&self.socket(), arguments)?;
        output.ok().with_context(|| format!("ctr {}\nkeveld: {}", arguments.join(" "), tail(&self.log())))
    }

    /// A channel to the node.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        let socket = self.socket();
        let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move {
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tokio::net::UnixStream::connect(socket).await?))
            }
        });
        Ok(endpoint.connect_with_connector(connect).await?)
    }

    /// CRI clients of the node.
    pub async fn cri(&self) -> anyhow::Result<(RuntimeServiceClient<Channel>, ImageServiceClient<Channel>)> {
        let channel = self.channel().await?;
        Ok((RuntimeServiceClient::new(channel.clone()), ImageServiceClient::new(channel)))
    }

    /// What is left of the node beside its daemon.
    pub fn leaks(&self) -> Leaks {
        let mut leaks = Leaks::of(&self.mark());
        let daemon = self.pid().map_or_else(|| "none".to_owned(), |pid| format!("{pid} "));
        leaks.processes.retain(|process| !process.starts_with(&daemon));
        leaks
    }

    /// Removes the cgroup that pods were put below, which is kubelet's to make and remove. It stays, and is found as a
    /// leak, when anything is left in it.
    pub fn remove_parent_cgroup(&self) {
        for group in self.leaks().cgroups {
            let _ = fs::remove_dir(group);
        }
    }

    /// Waits until nothing is left of the node beside its daemon; the error lists what is.
    pub fn assert_no_leaks(&self) -> anyhow::Result<()> {
        self.assert_no_leaks_but(&[])
    }

    /// The same, beside processes of the test's own whose command lines contain one of these words.
    pub fn assert_no_leaks_but(&self, words: &[&str]) -> anyhow::Result<()> {
        let leaks = || {
            let mut leaks = self.leaks();
            leaks.processes.retain(|process| !words.iter().any(|word| process.contains(word)));
            leaks
        };
        let clean = wait::until("nothing to be left", || leaks().is_empty().then_some(()));
        clean.map_err(|_| anyhow::anyhow!("left behind: {:#?}", leaks()))
    }

    /// A subnet that no other node of this machine's tests uses at the same time.
    pub fn subnet(&self) -> &str {
        &self.subnet
    }

    /// The bridge of the node, removed with it. Bridge names have at most 15 characters; the end of the mark is the random part.
    pub fn bridge(&self) -> String {
        let mark = self.mark();
        format!("kv{}", &mark[mark.len().saturating_sub(6)..])
    }

    fn config(&self, options: &NodeOptions) -> String {
        let root = self.dir.path().display();
        let bridge = self.bridge();
        format!(
            r#"version = 4
root = "{root}/root"
state = "{root}/state"
{top}
{timeouts}
[debug]
level = "debug"
[plugins."io.containerd.shim.v1.manager"]
socket_dir = "{root}/s"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{hosts}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{sandbox_image}"
[plugins."io.containerd.transfer.v1.local"]
config_path = "{hosts}"
[plugins."io.containerd.nri.v1.nri"]
socket_path = "{root}/nri.sock"
plugin_path = "{root}/nri-plugins"
plugin_config_path = "{root}/nri-conf.d"
{nri}
[plugins."io.containerd.cri.v1.runtime".cni]
conf_dir = "{root}/net.d"
fallback_bridge = "{bridge}"
fallback_subnets = ["{subnet}"]
cache_dir = "{root}/cni"
{more}
"#,
            top = options.top,
            timeouts = timeouts(),
            hosts = options.hosts_dir,
            sandbox_image = options.sandbox_image,
            subnet = self.subnet,
            nri = options.nri,
            more = options.config,
        )
    }
}

/// The daemon's own limits for shims, as much longer as everything takes on this machine; nothing on an ordinary one.
fn timeouts() -> String {
    if patience(1) == Duration::from_secs(1) {
        return String::new();
    }
    let limits = [("shim.load", 5), ("shim.cleanup", 5), ("shim.shutdown", 3), ("task.state", 2)];
    let line = |(name, seconds)| format!("\"io.containerd.timeout.{name}\" = \"{}s\"\n", patience(seconds).as_secs());
    format!("[timeouts]\n{}", limits.map(line).concat())
}

/// What the CRI wants to know of a pod of that name.
pub(crate) fn pod_metadata(name: &str) -> PodSandboxMetadata {
    PodSandboxMetadata {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        namespace: "default".to_owned(),
        attempt: 0,
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("keveld said:\n{}", tail(&self.log()));
        }
        if self.daemon.is_some() {
            let _ = self.stop();
        }
        // Shims first, which would tell of their containers' end.
        let shims = Leaks::of(&self.mark()).processes;
        let shims = shims.iter().filter_map(|process| process.split(' ').next().map(str::to_owned));
        for pid in shims.chain(leak::members(&self.mark())) {
            let _ = program::run(Path::new("/bin/kill"), &["-KILL", &pid]);
        }
        let _ = wait::until("what was killed to end", || leak::members(&self.mark()).is_empty().then_some(()));
        leak::remove_cgroups(&self.mark());
        let _ = program::run(Path::new("/sbin/ip"), &["link", "delete", &self.bridge()]);
        let mounts = Leaks::of(&self.mark()).mounts;
        for point in mounts.iter().rev().filter_map(|line| line.split(' ').nth(4)) {
            let _ = program::run(Path::new("/bin/umount"), &["-l", point]);
        }
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(80)..].join("\n")
}

/// A subnet for the node's bridge that no other node of this machine's tests uses at the same time.
fn subnet() -> String {
    static NODES: AtomicU32 = AtomicU32::new(0);
    let (process, node) = (std::process::id(), NODES.fetch_add(1, Ordering::Relaxed));
    format!("10.{}.{}.0/24", 100 + process % 100, (process / 100 + node) % 250)
}

/// The daemon in the build directory.
const DAEMON: &str = "keveld";

/// The daemon beside this test in the build directory.
pub(crate) fn daemon() -> anyhow::Result<PathBuf> {
    built(DAEMON)
}

fn built(program: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("build directory")?;
    let daemon = folder.join(program);
    if !daemon.is_file() {
        bail!("{} is not built: cargo build --workspace --bins --examples", daemon.display());
    }
    Ok(daemon)
}
