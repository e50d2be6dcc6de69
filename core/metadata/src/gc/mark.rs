//! From one state to what is alive in it, and from that to what goes. Pure.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use kevel_contract::lease::Resource;
use kevel_model::{Labels, Namespace};

use super::label;
use crate::{
    mounts,
    shelf::{key, part},
    state::State,
};

/// An object of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Node {
    Blob(Namespace, String),
    /// Snapshotter, name.
    Snapshot(Namespace, String, String),
    Ingest(Namespace, String),
    Image(Namespace, String),
    Container(Namespace, String),
    /// Activated mounts.
    Mount(Namespace, String),
}

/// What goes: keys of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Garbage {
    pub(super) blobs: Vec<String>,
    pub(super) ingests: Vec<String>,
    pub(super) snapshots: Vec<String>,
    pub(super) images: Vec<String>,
    pub(super) mounts: Vec<String>,
    pub(super) leases: Vec<String>,
    /// Resources of leases that go.
    pub(super) resources: Vec<String>,
}

impl Garbage {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What nothing keeps at `now`.
pub(super) fn garbage(state: &State, now: SystemTime) -> Garbage {
    let mut marker = Marker::new(state, now);
    marker.roots();
    marker.spread();
    let (alive, flat) = (marker.alive, marker.flat);
    let kept = |node: Node| alive.contains(&node) || flat.contains(&node);
    let dead = |keys: &mut Vec<String>, key: &str, node: Node| {
        if !kept(node) {
            keys.push(key.to_owned());
        }
    };
    let mut garbage = Garbage::default();
    for (key, _) in state.blobs.all() {
        dead(&mut garbage.blobs, key, Node::Blob(namespace(key), part(key, 1).to_owned()));
    }
    for (key, ingest) in state.ingests.all() {
        dead(&mut garbage.ingests, key, Node::Ingest(namespace(key), ingest.reference.clone()));
    }
    for (key, snapshot) in state.snapshots.all() {
        dead(&mut garbage.snapshots, key, Node::Snapshot(namespace(key), snapshotter(key), snapshot.info.name.clone()));
    }
    for (key, image) in state.images.all() {
        dead(&mut garbage.images, key, Node::Image(namespace(key), image.name.clone()));
    }
    for (key, _) in state.mounts.all() {
        dead(&mut garbage.mounts, key, Node::Mount(namespace(key), part(key, 1).to_owned()));
    }
    for (key, lease) in state.leases.all() {
        if label::expired(&lease.labels, now) {
            garbage.leases.push(key.to_owned());
            garbage.resources.extend(state.resources.under(key).map(|(key, _)| key.to_owned()));
        }
    }
    garbage
}

/// The namespace in a key. Keys are made from namespaces; one that is not valid here is never equal to another.
fn namespace(key: &str) -> Namespace {
    let name = key.split('\0').next().unwrap_or_default();
    Namespace::new(name).unwrap_or_else(|_| Namespace::k8s())
}

fn snapshotter(key: &str) -> String {
    key.split('\0').nth(1).unwrap_or_default().to_owned()
}

struct Marker<'a> {
    state: &'a State,
    now: SystemTime,
    alive: HashSet<Node>,
    /// Kept, without what they refer to.
    flat: HashSet<Node>,
    /// Alive, and not yet looked into.
    pending: Vec<(Node, bool)>,
    /// What lives as long as something else does.
    kept_by: HashMap<Node, Vec<Node>>,
}

impl<'a> Marker<'a> {
    fn new(state: &'a State, now: SystemTime) -> Self {
        let (alive, flat, pending, kept_by) = Default::default();
        Self { state, now, alive, flat, pending, kept_by }
    }

    fn keep(&mut self, node: Node) {
        if self.alive.insert(node.clone()) {
            self.pending.push((node, false));
        }
    }

    fn keep_flat(&mut self, node: Node) {
        if !self.alive.contains(&node) && self.flat.insert(node.clone()) {
            self.pending.push((node, true));
        }
    }

    fn keep_all(&mut self, nodes: Vec<Node>) {
        for node in nodes {
            self.keep(node);
        }
    }

    /// Keeps what is alive by itself, and notes the references back.
    fn roots(&mut self) {
        let state = self.state;
        self.leases();
        for (key, image) in state.images.all() {
            let node = Node::Image(namespace(key), image.name.clone());
            if !label::expired(&image.labels, self.now) {
                self.keep(node.clone());
            }
            self.note(node, &image.labels);
        }
        for (key, container) in state.containers.all() {
            self.keep(Node::Container(namespace(key), container.id.clone()));
        }
        for (key, sandbox) in state.sandboxes.all() {
            self.keep_all(label::references(&namespace(key), &sandbox.labels));
        }
        for (key, blob) in state.blobs.all() {
            let node = Node::Blob(namespace(key), part(key, 1).to_owned());
            self.labelled(node, &blob.labels);
        }
        for (key, snapshot) in state.snapshots.all() {
            let node = Node::Snapshot(namespace(key), snapshotter(key), snapshot.info.name.clone());
            self.labelled(node, &snapshot.info.labels);
        }
        for (key, mounts) in state.mounts.all() {
            let node = Node::Mount(namespace(key), part(key, 1).to_owned());
            if !mounts.done {
                self.keep(node.clone()); // somebody is at work on it
            }
            self.labelled(node, &mounts.activation.labels);
        }
        for (key, ingest) in state.ingests.all() {
            if ingest.expires_at > self.now {
                self.keep(Node::Ingest(namespace(key), ingest.reference.clone()));
            }
        }
    }

    fn leases(&mut self) {
        let state = self.state;
        for (lease, record) in state.leases.all() {
            if label::expired(&record.labels, self.now) {
                continue;
            }
            let flat = record.labels.contains_key(label::FLAT);
            for (_, resource) in state.resources.under(lease) {
                match leased(&namespace(lease), resource) {
                    Some(node) if flat => self.keep_flat(node),
                    Some(node) => self.keep(node),
                    None => {}
                }
            }
        }
    }

    fn labelled(&mut self, node: Node, labels: &Labels) {
        self.note(node.clone(), labels);
        if labels.contains_key(label::ROOT) {
            self.keep(node);
        }
    }

    fn note(&mut self, node: Node, labels: &Labels) {
        let namespace = match &node {
            Node::Blob(namespace, _)
            | Node::Snapshot(namespace, ..)
            | Node::Ingest(namespace, _)
            | Node::Image(namespace, _)
            | Node::Container(namespace, _)
            | Node::Mount(namespace, _) => namespace,
        };
        for keeper in label::keepers(namespace, labels) {
            self.kept_by.entry(keeper).or_default().push(node.clone());
        }
    }

    /// Keeps everything that what is alive refers to.
    fn spread(&mut self) {
        while let Some((node, flat)) = self.pending.pop() {
            if !self.exists(&node) {
                continue;
            }
            self.parent(&node, flat);
            if flat {
                continue;
            }
            self.keep_all(self.references(&node));
            let kept = self.kept_by.get(&node).cloned().unwrap_or_default();
            self.keep_all(kept);
        }
    }

    fn exists(&self, node: &Node) -> bool {
        let state = self.state;
        match node {
            Node::Blob(namespace, digest) => state.blobs.get(&key(namespace, &[digest])).is_some(),
            Node::Snapshot(namespace, snapshotter, name) => {
                state.snapshots.get(&key(namespace, &[snapshotter, name])).is_some()
            }
            Node::Ingest(namespace, reference) => state.ingests.get(&key(namespace, &[reference])).is_some(),
            Node::Image(namespace, name) => state.images.get(&key(namespace, &[name])).is_some(),
            Node::Container(namespace, id) => state.containers.get(&key(namespace, &[id])).is_some(),
            Node::Mount(namespace, name) => state.mounts.get(&key(namespace, &[name])).is_some(),
        }
    }

    /// A snapshot can't be without its parent, whatever keeps it.
    fn parent(&mut self, node: &Node, flat: bool) {
        let Node::Snapshot(namespace, snapshotter, name) = node else { return };
        let Some(snapshot) = self.state.snapshots.get(&key(namespace, &[snapshotter, name])) else { return };
        if snapshot.info.parent.is_empty() {
            return;
        }
        let parent = Node::Snapshot(namespace.clone(), snapshotter.clone(), snapshot.info.parent.clone());
        match flat {
            true => self.keep_flat(parent),
            false => self.keep(parent),
        }
    }

    fn references(&self, node: &Node) -> Vec<Node> {
        let state = self.state;
        match node {
            Node::Blob(namespace, digest) => {
                let blob = state.blobs.get(&key(namespace, &[digest]));
                blob.map(|blob| label::references(namespace, &blob.labels)).unwrap_or_default()
            }
            Node::Snapshot(namespace, snapshotter, name) => {
                let snapshot = state.snapshots.get(&key(namespace, &[snapshotter, name]));
                snapshot.map(|snapshot| label::references(namespace, &snapshot.info.labels)).unwrap_or_default()
            }
            Node::Ingest(namespace, reference) => {
                let expected = state.ingests.get(&key(namespace, &[reference]));
                let expected = expected.and_then(|ingest| ingest.expected.as_ref());
                expected.map(|digest| Node::Blob(namespace.clone(), digest.to_string())).into_iter().collect()
            }
            Node::Image(namespace, name) => {
                let Some(image) = state.images.get(&key(namespace, &[name])) else { return Vec::new() };
                let mut nodes = label::references(namespace, &image.labels);
                nodes.push(Node::Blob(namespace.clone(), image.target.digest.to_string()));
                nodes
            }
            Node::Container(namespace, id) => {
                let Some(container) = state.containers.get(&key(namespace, &[id])) else { return Vec::new() };
                let mut nodes = label::references(namespace, &container.labels);
                if !container.snapshot_key.is_empty() {
                    let (snapshotter, name) = (container.snapshotter.clone(), container.snapshot_key.clone());
                    nodes.push(Node::Snapshot(namespace.clone(), snapshotter, name));
                }
                nodes
            }
            Node::Mount(namespace, name) => {
                let mounts = state.mounts.get(&key(namespace, &[name]));
                mounts.map(|mounts| label::references(namespace, &mounts.activation.labels)).unwrap_or_default()
            }
        }
    }
}

/// What a lease's resource names.
fn leased(namespace: &Namespace, resource: &Resource) -> Option<Node> {
    let (namespace, id) = (namespace.clone(), resource.id.clone());
    match (resource.kind.as_str(), resource.kind.split_once('/')) {
        ("content", _) => Some(Node::Blob(namespace, id)),
        ("ingests", _) => Some(Node::Ingest(namespace, id)),
        ("images", _) => Some(Node::Image(namespace, id)),
        (mounts::RESOURCE, _) => Some(Node::Mount(namespace, id)),
        (_, Some(("snapshots", snapshotter))) => Some(Node::Snapshot(namespace, snapshotter.to_owned(), id)),
        _ => None,
    }
}
