//! A cluster of one node, started by `hack/cluster`: a real API server and kubelet on the daemon under test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context as _;
use serde_json::Value;

use crate::{node, program, wait};

/// What a cluster is started with beside what `hack/cluster` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterOptions<'a> {
    /// Added to the daemon's configuration; `DIR` is the cluster's directory.
    pub config: &'a str,
    /// A drop-in for kubelet's configuration.
    pub kubelet: &'a str,
    /// What `hack/cluster up` is told.
    pub arguments: &'a [&'a str],
}

/// A running cluster; ended and removed when dropped.
pub struct Cluster {
    script: PathBuf,
    dir: tempfile::TempDir,
    images: Value,
}

impl Cluster {
    /// Starts a cluster and waits until its node is ready.
    pub fn start(options: ClusterOptions<'_>) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/cluster");
        let dir = tempfile::Builder::new().prefix("kevel-cluster-").tempdir()?;
        let mut cluster = Self { script, dir, images: Value::Null };
        fs::write(cluster.path("extra.toml"), cluster.fill(options.config))?;
        fs::create_dir(cluster.path("kubelet.conf.d"))?;
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        fs::write(cluster.path("kubelet.conf.d/10-test.conf"), format!("{head}{}", options.kubelet))?;
        cluster.act("up", options.arguments)?;
        cluster.images = serde_json::from_slice(&fs::read(cluster.path("images.json"))?)?;
        Ok(cluster)
    }

    /// A path below the cluster's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The part of the directory's name that processes, mounts and cgroups of the cluster carry.
    pub fn mark(&self) -> String {
        self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Ends `keveld` or `kubelet` as an operator does (`restart`) or with SIGKILL (`kill`), and starts it again.
    pub fn again(&self, how: &str, process: &str) -> anyhow::Result<()> {
        self.act(how, &[process]).map(drop)
    }

    /// The node loses power and comes back.
    pub fn reboot(&self) -> anyhow::Result<()> {
        self.act("reboot", &[]).map(drop)
    }

    /// What kubectl printed, if it succeeded.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = self.try_kubectl(arguments)?;
        said.ok().with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// Runs kubectl.
    pub fn try_kubectl(&self, arguments: &[&str]) -> anyhow::Result<program::Output> {
        self.script_with("kubectl", &[&["--"], arguments].concat(), Stdio::null())
    }

    /// What kubectl printed that was given something to read.
    pub fn kubectl_fed(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut file = tempfile::tempfile()?;
        std::io::Write::write_all(&mut file, input.as_bytes())?;
        std::io::Seek::rewind(&mut file)?;
        self.script_with("kubectl", &[&["--"], arguments].concat(), file.into())?
            .ok()
            .with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// What another program printed in the cluster's network, if it succeeded.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let all = [&["--", program], arguments].concat();
        self.script_with("run", &all, Stdio::null())?.ok().with_context(|| format!("{program} {}", arguments.join(" ")))
    }

    /// Applies a manifest of `e2e/manifests`.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        let file = self.path(manifest);
        fs::write(&file, self.manifest(manifest)?)?;
        self.kubectl(&["apply", "-f", &file.display().to_string()]).map(drop)
    }

    /// A manifest with the image and the directory filled in.
    pub fn manifest(&self, name: &str) -> anyhow::Result<String> {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(name))?;
        Ok(self.fill(&text.replace("IMAGE", self.image("busybox"))))
    }

    fn fill(&self, text: &str) -> String {
        text.replace("DIR", &self.dir.path().display().to_string())
    }

    /// The events that an object has, as `reason: message`.
    pub fn events(&self, object: &str) -> anyhow::Result<Vec<String>> {
        let chosen = format!("involvedObject.name={object}");
        let said = self.kubectl(&["get", "events", "-A", "--field-selector", &chosen, "-o", "json"])?;
        let events: Value = serde_json::from_str(&said)?;
        let events = events["items"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(events.map(|event| format!("{}: {}", text(&event["reason"]), text(&event["message"]))).collect())
    }

    /// What the API server has of a pod.
    pub fn pod(&self, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", "pod", name, "-o", "json"])?)?)
    }

    /// Waits until a pod is as wanted; the error shows how it was last.
    pub fn until_pod(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let found = wait::until(&format!("pod {name} {what}"), || {
            last = self.pod(name).unwrap_or_default();
            is(&last).then(|| last.clone())
        });
        found.with_context(|| format!("status: {:#}\nkeveld: {}", last["status"], self.log("keveld")))
    }

    /// The end of a process's log.
    pub fn log(&self, process: &str) -> String {
        node::tail(&fs::read_to_string(self.path(&format!("log/{process}.log"))).unwrap_or_default())
    }

    /// The reference of an image.
    pub fn image(&self, name: &str) -> &str {
        self.images["images"][name]["ref"].as_str().unwrap_or_default()
    }

    /// What an HTTP server in a pod answers through `kubectl port-forward`.
    pub fn forwarded(&self, target: &str, port: u16, path: &str) -> anyhow::Result<String> {
        // The forwarder and its client are both in the cluster's network; the script ends the forwarder.
        self.script_with("forward", &[target, &port.to_string(), path], Stdio::null())?.ok()
    }

    fn act(&self, action: &str, rest: &[&str]) -> anyhow::Result<String> {
        let said = self.script_with(action, rest, Stdio::null())?;
        said.ok().with_context(|| format!("hack/cluster {action} {}", rest.join(" ")))
    }

    fn script_with(&self, action: &str, rest: &[&str], input: Stdio) -> anyhow::Result<program::Output> {
        let dir = self.dir.path().display().to_string();
        let arguments = [&[action, &dir], rest].concat();
        let keveld = node::daemon()?.display().to_string();
        program::run_with(&self.script, &arguments, &[("KEVELD", &keveld)], input)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("keveld said:\n{}\nkubelet said:\n{}", self.log("keveld"), self.log("kubelet"));
        }
        if let Err(error) = self.act("down", &[]) {
            eprintln!("removing the cluster: {error:#}");
        }
    }
}
