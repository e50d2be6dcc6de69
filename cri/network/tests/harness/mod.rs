//! What the tests of this folder share: a scratch node with a "host" network namespace of its own, pods on it, and
//! plugins that are shell scripts. The machine's own network is never touched.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::result_large_err, reason = "tests stop at the first surprise")]

use kevel_cri_network::netns::{Options, Origin};
use kevel_cri_network::{Config, Netns, PodNetwork};
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Where Debian puts the upstream plugins.
pub const PLUGINS: &str = "/usr/lib/cni";

/// A directory for everything that a node has on disk.
pub struct Node {
    pub dir: Arc<TempDir>,
}

impl Node {
    pub fn new() -> Self {
        let node = Self { dir: Arc::new(tempfile::tempdir().unwrap()) };
        for dir in ["bin", "conf", "netns", "cache"] {
            fs::create_dir(node.path(dir)).unwrap();
        }
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Fake plugins from `bin`, short deadlines.
    pub fn config(&self) -> Config {
        let mut config = Config {
            bin_dirs: vec![self.path("bin")],
            conf_dir: self.path("conf"),
            cache_dir: self.path("cache"),
            ..Config::default()
        };
        config.timeouts.add = Duration::from_secs(20);
        config.timeouts.del = Duration::from_secs(20);
        config
    }

    /// The upstream plugins.
    pub fn upstream(&self) -> Config {
        for plugin in ["bridge", "host-local", "portmap", "loopback"] {
            let path = Path::new(PLUGINS).join(plugin);
            assert!(path.exists(), "{} is missing: apt-get install containernetworking-plugins", path.display());
        }
        Config { bin_dirs: vec![PLUGINS.into()], ..self.config() }
    }

    pub fn conf(&self, name: &str, text: &str) {
        fs::write(self.path("conf").join(name), text).unwrap();
    }

    /// A plugin that is a shell script. `$LOG` is a file to write to.
    pub fn script(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        let log = self.path("log");
        fs::write(&path, format!("#!/bin/sh\nLOG={}\n{body}\n", log.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Names of records in the result cache.
    pub fn records(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("cache/results")) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub async fn netns(&self) -> Pinned {
        self.netns_with(&[]).await
    }

    pub async fn netns_with(&self, sysctls: &[(&str, &str)]) -> Pinned {
        let sysctls = sysctls.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let options = Options { dir: self.path("netns"), sysctls, origin: Origin::New };
        Pinned(Netns::create(options).await.unwrap())
    }

    /// Runs a test in a namespace that plays the host: plugins are started from there and inherit it.
    pub fn on_host<F>(self, test: impl FnOnce(Node) -> F + Send + 'static)
    where
        F: Future<Output = ()>,
    {
        block_on(async move {
            // The directory goes after the pin in it, in reverse order of these lines.
            let _dir = self.dir.clone();
            let host = self.netns().await;
            let inside = move || block_on(test(self));
            host.0.run(inside).await.unwrap();
        });
    }
}

/// A namespace that is unpinned at the end, panics included.
pub struct Pinned(pub Netns);

impl Drop for Pinned {
    fn drop(&mut self) {
        let netns = self.0.clone();
        std::thread::spawn(move || block_on(netns.remove())).join().unwrap().unwrap();
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub fn pod(id: &str, netns: &Pinned) -> PodNetwork {
    PodNetwork {
        id: id.to_owned(),
        name: "web-0".to_owned(),
        namespace: "default".to_owned(),
        uid: "uid-1".to_owned(),
        netns: netns.0.path().to_owned(),
        ..PodNetwork::default()
    }
}

/// What a command prints in the current namespace.
pub fn run(command: &str) -> String {
    let output = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
