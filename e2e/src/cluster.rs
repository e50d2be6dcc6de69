//! A cluster of one node, started by `hack/cluster`: a real API server and kubelet on the daemon under test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::Value;

use crate::{node, program, wait};

/// A running cluster; ended and removed when dropped.
pub struct Cluster {
    script: PathBuf,
    dir: tempfile::TempDir,
    image: String,
}

impl Cluster {
    /// Starts a cluster and waits until its node is ready. `config` is added to the daemon's configuration.
    pub fn start(config: &str) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/cluster");
        let dir = tempfile::Builder::new().prefix("kevel-cluster-").tempdir()?;
        fs::write(dir.path().join("extra.toml"), config)?;
        let mut cluster = Self { script, dir, image: String::new() };
        cluster.act(&["up"])?;
        let images: Value = serde_json::from_slice(&fs::read(cluster.path("images.json"))?)?;
        cluster.image = images["images"]["busybox"]["ref"].as_str().context("the image's reference")?.to_owned();
        Ok(cluster)
    }

    /// A path below the cluster's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends `keveld` or `kubelet` as an operator does (`restart`) or with SIGKILL (`kill`), and starts it again.
    pub fn again(&self, how: &str, process: &str) -> anyhow::Result<()> {
        self.act(&[how, process]).map(drop)
    }

    /// What kubectl printed, if it succeeded.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = self.try_kubectl(arguments)?;
        said.ok().with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// Runs kubectl.
    pub fn try_kubectl(&self, arguments: &[&str]) -> anyhow::Result<program::Output> {
        self.script_with("kubectl", arguments)
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
        Ok(text.replace("IMAGE", &self.image).replace("DIR", &self.dir.path().display().to_string()))
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

    /// The image of the manifests.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// What an HTTP server in a pod answers through `kubectl port-forward`.
    pub fn forwarded(&self, target: &str, port: u16, path: &str) -> anyhow::Result<String> {
        // The forwarder and its client are both in the cluster's network; the script ends the forwarder.
        self.script_with("forward", &[target, &port.to_string(), path])?.ok()
    }

    fn act(&self, action: &[&str]) -> anyhow::Result<String> {
        let (first, rest) = action.split_first().context("an action")?;
        let said = self.script_with(first, rest)?;
        said.ok().with_context(|| format!("hack/cluster {}", action.join(" ")))
    }

    fn script_with(&self, action: &str, rest: &[&str]) -> anyhow::Result<program::Output> {
        let dir = self.dir.path().display().to_string();
        let mut arguments = vec![action, &dir];
        if action == "kubectl" {
            arguments.push("--");
        }
        arguments.extend(rest);
        let keveld = node::daemon()?.display().to_string();
        program::run_with(&self.script, &arguments, &[("KEVELD", &keveld)])
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("keveld said:\n{}\nkubelet said:\n{}", self.log("keveld"), self.log("kubelet"));
        }
        if let Err(error) = self.act(&["down"]) {
            eprintln!("removing the cluster: {error:#}");
        }
    }
}
