//! A runtime under measurement: a daemon with a root, state, socket, bridge and cgroup of its own. Both runtimes read the
//! same configuration, since Kevel takes containerd's keys.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use kevel_proto::runtime::v1 as cri;
use tokio::process::{Child, Command};

use crate::{cgroup, client::Client, images::Images, memory};

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is common to the runtimes of a run.
pub(crate) struct Place<'a> {
    /// The folder of the run.
    pub(crate) dir: &'a Path,
    /// What the run is called in names of cgroups.
    pub(crate) mark: &'a str,
    /// PATH of the daemons.
    pub(crate) search: OsString,
    pub(crate) images: &'a Images,
}

/// A runtime under measurement.
pub(crate) struct Side {
    /// What the table calls it.
    pub(crate) name: String,
    /// The daemon's file.
    pub(crate) program: PathBuf,
    dir: PathBuf,
    bridge: String,
    /// Its cgroup, as pods are told.
    group: String,
    pub(crate) cgroup: cgroup::Cgroup,
    search: OsString,
    daemon: Option<Child>,
    client: Option<Client>,
}

impl Side {
    /// Writes the runtime's configuration and starts it. `number` tells the two apart in the names that the node shares.
    pub(crate) async fn start(name: &str, program: PathBuf, number: u8, place: &Place<'_>) -> anyhow::Result<Self> {
        let dir = place.dir.join(format!("side{number}"));
        fs::create_dir_all(dir.join("net.d"))?;
        let digits = place.mark.rsplit('-').next().unwrap_or_default();
        let group = format!("{}/side{number}", place.mark);
        let side = Self {
            name: name.to_owned(),
            program,
            bridge: format!("kvb{digits}{number}"),
            cgroup: cgroup::Cgroup::make(&group)?,
            group,
            search: place.search.clone(),
            daemon: None,
            client: None,
            dir,
        };
        fs::write(side.dir.join("config.toml"), config(&side.dir, place.images))?;
        fs::write(side.dir.join("net.d/10-bench.conflist"), network(&side.dir, &side.bridge, number))?;
        let mut side = side;
        side.launch().await?;
        Ok(side)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("d.sock")
    }

    /// Starts the daemon and answers when it answers Version.
    pub(crate) async fn launch(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("log"))?;
        // The shell joins the cgroup before it becomes the daemon, so that nothing of it runs elsewhere.
        let child = Command::new("/bin/sh")
            .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(self.cgroup.entrance())
            .arg(&self.program)
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .env("PATH", &self.search)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        self.daemon = Some(child);
        let socket = self.socket();
        let ended = async {
            match self.daemon.as_mut() {
                Some(child) => child.wait().await,
                None => std::future::pending().await,
            }
        };
        let client = tokio::select! {
            client = Client::connect(&socket) => client,
            status = ended => Err(anyhow::anyhow!("it ended: {status:?}")),
        };
        self.client = Some(client.with_context(|| format!("starting {}:\n{}", self.name, self.log()))?);
        Ok(())
    }

    /// Ends the daemon as an operator does; pods go on.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.client = None;
        let Some(mut child) = self.daemon.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
            child.kill().await?;
            bail!("{} did not end within {PATIENCE:?} of SIGTERM", self.name);
        }
        Ok(())
    }

    /// A client of the running daemon.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        self.client.clone().with_context(|| format!("{} does not run", self.name))
    }

    /// Process id of the daemon.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.daemon.as_ref().and_then(Child::id).with_context(|| format!("{} does not run", self.name))
    }

    /// Memory of all shims together, in MiB.
    pub(crate) fn shims_pss(&self) -> anyhow::Result<f64> {
        let processes = self.cgroup.daemon_processes()?;
        // The kernel cuts names at 15 characters.
        let shims = processes.into_iter().filter(|pid| memory::name(*pid).starts_with("containerd-shim"));
        shims.map(memory::pss).sum()
    }

    /// The configuration of a pod; names are unique in a run.
    pub(crate) fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: "bench".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.dir.join("logs").join(name).display().to_string(),
            dns_config: Some(cri::DnsConfig { servers: vec!["192.0.2.53".to_owned()], ..Default::default() }),
            labels: [("app".to_owned(), name.to_owned())].into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/pods/{name}", self.group),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Removes pods, daemon, processes, mounts and bridge. The folder and the cgroups are the run's to remove.
    pub(crate) async fn clean(&mut self) -> anyhow::Result<()> {
        let removed = self.remove_pods().await;
        let stopped = self.stop().await;
        self.kill_rest().await?;
        self.unmount();
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).output().await; // there may be none yet
        removed.and(stopped).with_context(|| format!("cleaning up; the log of {} ends:\n{}", self.name, self.log()))
    }

    async fn remove_pods(&mut self) -> anyhow::Result<()> {
        let Some(mut client) = self.client.clone() else { return Ok(()) };
        for pod in client.pod_list().await? {
            client.stop_pod(&pod.id).await?;
            client.remove_pod(&pod.id).await?;
        }
        Ok(())
    }

    /// Ends what is left in the runtime's cgroup, which holds nobody else's processes.
    async fn kill_rest(&self) -> anyhow::Result<()> {
        let kill = async {
            loop {
                let rest = self.cgroup.all_processes();
                if rest.is_empty() {
                    return;
                }
                for pid in rest.iter().filter_map(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL); // it may have gone
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let killed = tokio::time::timeout(PATIENCE, kill).await;
        killed.with_context(|| format!("processes of {} do not end", self.name))
    }

    fn unmount(&self) {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let own: Vec<_> = points.filter(|point| point.starts_with(&self.dir)).collect();
        for point in own.into_iter().rev() {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH); // removing the folder tells
        }
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// The configuration that both runtimes read.
fn config(dir: &Path, images: &Images) -> String {
    let (dir, hosts, pause) = (dir.display(), images.hosts_dir(), images.reference("pause"));
    format!(
        r#"version = 4
root = "{dir}/root"
state = "{dir}/state"
[plugins."io.containerd.server.v1.grpc"]
address = "{dir}/d.sock"
[plugins."io.containerd.server.v1.ttrpc"]
address = "{dir}/d.sock.ttrpc"
[plugins."io.containerd.shim.v1.manager"]
socket_dir = "{dir}/s"
[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
[plugins."io.containerd.nri.v1.nri"]
socket_path = "{dir}/nri.sock"
plugin_path = "{dir}/nri"
plugin_config_path = "{dir}/nri.d"
[plugins."io.containerd.transfer.v1.local"]
config_path = "{hosts}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{hosts}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
conf_dir = "{dir}/net.d"
"#
    )
}

/// A bridge with addresses and port mappings, as most nodes have; a subnet and a bridge of the side's own.
fn network(dir: &Path, bridge: &str, number: u8) -> String {
    let addresses = serde_json::json!({
        "type": "host-local",
        "dataDir": dir.join("ipam"),
        "ranges": [[{ "subnet": format!("10.{}.0.0/16", 214 + number) }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    let bridge = serde_json::json!({ "type": "bridge", "bridge": bridge, "isGateway": true, "ipam": addresses });
    let ports = serde_json::json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    serde_json::json!({ "cniVersion": "1.0.0", "name": "bench", "plugins": [bridge, ports] }).to_string()
}
