//! Everything that a node has of pods, containers and images, as lists of names: what it had before has to be what it has
//! after everything was removed.

use std::{collections::BTreeSet, fs};

use crate::{Faults, Node, until};

/// What a node has, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: BTreeSet<String>,
}

impl Ledger {
    /// Looks at a node that runs.
    pub fn of(node: &Node, faults: &Faults) -> anyhow::Result<Self> {
        let mut entries = BTreeSet::new();
        for (kind, arguments) in [
            ("snapshot", &["snapshots", "ls"][..]),
            ("container", &["containers", "ls", "-q"]),
            ("lease", &["leases", "ls", "-q"]),
            ("ingest", &["content", "active"]),
            ("blob", &["content", "ls", "-q"]),
        ] {
            let said = node.ctr(&[&["--namespace", "k8s.io"], arguments].concat())?;
            entries
                .extend(said.lines().map(|line| format!("{kind} {}", line.split_whitespace().next().unwrap_or(line))));
        }
        for dir in [
            "state/io.containerd.runtime.v2.task/k8s.io",
            "root/io.containerd.runtime.v2.task/k8s.io",
            "state/io.containerd.grpc.v1.cri/sandboxes",
            "state/io.containerd.grpc.v1.cri/containers",
            "state/io.containerd.grpc.v1.cri/netns",
            "root/io.containerd.grpc.v1.cri/sandboxes",
            "root/io.containerd.grpc.v1.cri/containers",
            "root/io.containerd.snapshotter.v1.overlayfs/snapshots",
            "root/io.containerd.content.v1.content/ingest",
            "cni/results",
            "s",
        ] {
            let found = fs::read_dir(node.path(dir)).into_iter().flatten().flatten();
            entries.extend(found.map(|entry| format!("{dir}/{}", entry.file_name().to_string_lossy())));
        }
        entries.extend(faults.left());
        let links = crate::run(std::path::Path::new("/sbin/ip"), &["-o", "link", "show", "master", &node.bridge()])?;
        entries.extend(links.stdout.lines().map(|line| format!("link {line}")));
        node.remove_parent_cgroup();
        let leaks = node.leaks();
        entries.extend(leaks.processes.into_iter().map(|one| format!("process {one}")));
        entries.extend(leaks.mounts.into_iter().map(|one| format!("mount {one}")));
        entries.extend(leaks.cgroups.into_iter().map(|one| format!("cgroup {one}")));
        Ok(Self { entries })
    }

    /// Waits until the node has no more and no less than this; the error says what the difference is.
    pub fn wait(&self, node: &Node, faults: &Faults) -> anyhow::Result<()> {
        let mut last = Self::default();
        let same = until("the node to have what it had before", || {
            last = Self::of(node, faults).ok()?;
            (last == *self).then_some(())
        });
        same.map_err(|error| {
            let more: Vec<_> = last.entries.difference(&self.entries).collect();
            let less: Vec<_> = self.entries.difference(&last.entries).collect();
            error.context(format!("left behind: {more:#?}\nmissing: {less:#?}"))
        })
    }
}
