//! The node of these tests, and containers on it that `ctr` runs.

use std::fs;

use kevel_e2e::{Faults, Node, NodeOptions, Registry, ctr, until};

/// Counts in memory, and shows how far it is and a word that it thought of when it began. Started anew it would have another.
pub(crate) const COUNT: &str =
    "n=0; word=$(cat /proc/sys/kernel/random/uuid); while :; do n=$((n+1)); echo $n $word >/shown; sleep 0.1; done";

/// A node whose shims use the runtime of the faults.
pub(crate) struct Setup {
    pub(crate) registry: Registry,
    pub(crate) node: Node,
    pub(crate) faults: Faults,
}

/// Starts it.
pub(crate) fn setup() -> Setup {
    let registry = Registry::start(&["busybox", "pause"]).unwrap();
    let faults = Faults::new().unwrap();
    let options = NodeOptions { programs: Some(faults.path("programs")), ..registry.node_options() };
    let mut node = faults.node(options, "", "").unwrap();
    node.launch().unwrap();
    Setup { registry, node, faults }
}

/// The same, with a stand-in for CRIU.
pub(crate) fn emulated() -> Setup {
    let setup = setup();
    setup.faults.emulate_criu().unwrap();
    setup
}

/// What a container shows: how far it is, and its word.
pub(crate) fn parse(said: &str) -> Option<(u64, String)> {
    let (number, word) = said.trim().split_once(' ')?;
    Some((number.parse().ok()?, word.to_owned()))
}

impl Setup {
    /// A container that counts, run by `ctr` with the runtime of the faults.
    pub(crate) fn count_by_ctr(&self, id: &str) {
        let (hosts, image) = (self.registry.hosts_dir(), self.registry.reference("busybox"));
        self.node.ctr(&["images", "pull", "--local", "--hosts-dir", hosts, image]).unwrap();
        let (group, runc) = (format!("/{}", self.node.mark()), self.faults.path("bin/runc"));
        let own =
            ["--runc-binary", runc.to_str().unwrap(), "--runc-root", &self.faults.path("runc").display().to_string()]
                .map(str::to_owned);
        let own = own.each_ref().map(String::as_str);
        let run = ["run", "-d", "--null-io", "--net-host", "--cgroup", &group];
        self.node.ctr(&[&run[..], &own, &[image, id, "sh", "-c", COUNT]].concat()).unwrap();
    }

    /// How far a container of `ctr` has counted, and its word.
    pub(crate) fn shown(&self, id: &str) -> Option<(u64, String)> {
        parse(&self.node.ctr(&["tasks", "exec", "--exec-id", "look", id, "cat", "/shown"]).ok()?)
    }

    pub(crate) fn remove_by_ctr(&self, id: &str) {
        self.node.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]).unwrap();
        until("the task to stop", || {
            let list = self.node.ctr(&["tasks", "ls"]).ok()?;
            list.lines().any(|line| line.starts_with(id) && line.ends_with("STOPPED")).then_some(())
        })
        .unwrap();
        self.node.ctr(&["tasks", "rm", id]).ok(); // its exit code is the task's
        self.node.ctr(&["containers", "rm", id]).unwrap();
    }

    /// What `ctr`'s failure was.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = ctr(&self.node.socket(), arguments).unwrap();
        assert_ne!(output.code, 0, "{arguments:?} succeeded: {output:?}");
        output.stderr
    }

    /// Scratch space of the task service that is in use.
    pub(crate) fn scratch(&self) -> usize {
        let dir = self.node.path("root/io.containerd.runtime.v2.task/.checkpoints");
        fs::read_dir(dir).map_or(0, Iterator::count)
    }
}
