//! A node in a temporary directory: the real stores and snapshotters with the transfer plugin over them, and images to
//! serve to it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its own part, and a broken helper may panic"
)]

use std::{io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use kevel_contract::{
    Scope,
    metadata::{Metadata, Stores},
    transfer::{Pull, Transfer, TransferService, Unpack},
};
use kevel_model::{Descriptor, Digest, Namespace, Platform, media_type::*};
use kevel_plugin::{Graph, Registry, Settings};

use crate::fake::Fake;

/// The plugin that runs verifiers.
pub const VERIFIERS: &str = "io.containerd.image-verifier.v1.bindir";

pub struct Node {
    pub root: tempfile::TempDir,
    pub graph: Graph,
    pub stores: Stores,
    pub transfer: Transfer,
}

impl Node {
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// A node whose transfer plugin has this table.
    pub async fn with(table: &str) -> Self {
        Self::with_tables(&[("io.containerd.transfer.v1.local", table)]).await
    }

    /// A node whose plugins have these tables.
    pub async fn with_tables(tables: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        registry.add::<kevel_content::Plugin>();
        registry.add::<kevel_event::Plugin>();
        registry.add::<kevel_snapshot::overlay::Plugin>();
        registry.add::<kevel_snapshot::native::Plugin>();
        registry.add::<kevel_metadata::Plugin>();
        registry.add::<kevel_diff::processor::Plugin>();
        registry.add::<kevel_transfer::verifier::Plugin>();
        registry.add::<kevel_transfer::Plugin>();
        let mut plugins: std::collections::BTreeMap<_, toml::Table> =
            tables.iter().map(|(uri, table)| ((*uri).to_owned(), table.parse().unwrap())).collect();
        // Not the machine's.
        let none = format!("bin_dir = {:?}", root.path().join("verifiers"));
        plugins.entry(VERIFIERS.to_owned()).or_insert_with(|| none.parse().unwrap());
        let settings = Settings {
            root: root.path().join("root"),
            state: root.path().join("state"),
            plugins,
            ..Settings::default()
        };
        let graph = registry.start(settings).await.unwrap();
        for report in graph.reports() {
            eprintln!("{}: {:?} {:?}", report.uri(), report.status, report.declared.capabilities);
        }
        let stores = graph.all::<Metadata>().remove("bolt").unwrap();
        let transfer = graph.all::<TransferService>().remove("local").unwrap();
        Self { root, graph, stores, transfer }
    }

    /// What a snapshot shows, as sorted paths with the first bytes of each file.
    pub async fn tree(&self, snapshotter: &str, chain: &Digest) -> Vec<String> {
        let snapshots = &self.stores.snapshotters[snapshotter];
        let key = format!("view-{:?}", std::time::Instant::now());
        let mounts = snapshots.view(&scope(), &key, chain.as_str(), Default::default()).await.unwrap();
        let scratch = self.root.path().join("views");
        let tree = tokio::task::spawn_blocking(move || {
            kevel_mount::with_temp_mount(&scratch, &mounts, |path| {
                let mut tree = Vec::new();
                walk(path, path, &mut tree);
                tree.sort();
                Ok::<_, kevel_mount::Error>(tree)
            })
        });
        let tree = tree.await.unwrap().unwrap();
        snapshots.remove(&scope(), &key).await.unwrap();
        tree
    }

    /// Keys of all snapshots that are not committed.
    pub async fn unfinished(&self, snapshotter: &str) -> Vec<String> {
        let all = self.stores.snapshotters[snapshotter].list(&scope(), &Default::default()).await.unwrap();
        all.into_iter().filter(|s| s.kind != kevel_contract::snapshot::Kind::Committed).map(|s| s.name).collect()
    }
}

impl Node {
    /// Where the content store has a blob.
    pub fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        let (algorithm, hex) = digest.as_str().split_once(':').unwrap();
        self.root.path().join("root/io.containerd.content.v1.content/blobs").join(algorithm).join(hex)
    }

    /// Waits until no transfer keeps anything, and collects.
    pub async fn collect(&self) {
        until("the lease is gone", || async {
            self.stores.leases.list(&scope(), &Default::default()).await.unwrap().is_empty()
        })
        .await;
        self.stores.garbage.collect().await.unwrap();
    }
}

/// An executable script.
pub fn script(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn walk(root: &std::path::Path, directory: &std::path::Path, tree: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if path.is_dir() {
            tree.push(format!("{name}/"));
            walk(root, &path, tree);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            tree.push(format!("{name}={}", text.chars().take(20).collect::<String>()));
        }
    }
}

pub fn scope() -> Scope {
    Scope::new(Namespace::k8s())
}

pub fn unpack(snapshotter: &str) -> Unpack {
    Unpack {
        platform: Platform::host(),
        snapshotter: snapshotter.to_owned(),
        labels: Default::default(),
        annotate: false,
    }
}

pub fn pull(fake: &Fake, rest: &str, snapshotters: &[&str]) -> Pull {
    Pull {
        reference: fake.reference(rest).to_string(),
        unpack: snapshotters.iter().map(|name| unpack(name)).collect(),
        ..Pull::default()
    }
}

/// An uncompressed layer of these files; a name that ends in `/` is a directory.
pub fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(text.len() as u64);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An image on a fake registry.
pub struct Served {
    pub index: Descriptor,
    pub manifest: Descriptor,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    pub chain: Vec<Digest>,
}

pub fn json(value: serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(&value).unwrap()
}

/// Serves an image of these layers for the host's platform, in an index beside one for another.
pub fn serve(fake: &Fake, tag: &str, layers: &[Vec<u8>]) -> Served {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    let blobs: Vec<Descriptor> = layers.iter().map(|layer| fake.blob(OCI_LAYER_GZIP, gzip(layer))).collect();
    serve_as(fake, tag, blobs, &diff_ids)
}

pub fn serve_as(fake: &Fake, tag: &str, layers: Vec<Descriptor>, diff_ids: &[Digest]) -> Served {
    let host = Platform::host();
    let config = fake.blob(
        OCI_CONFIG,
        json(serde_json::json!({
            "architecture": host.architecture, "os": host.os, "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })),
    );
    let manifest = fake.manifest(
        &format!("{tag}-manifest"),
        OCI_MANIFEST,
        json(serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
        })),
    );
    let mut ours = manifest.clone();
    ours.platform = Some(host);
    let mut other = Descriptor::new(OCI_MANIFEST, Digest::sha256(b"other"), 5);
    other.platform = Some("linux/s390x".parse().unwrap());
    let index = fake.manifest(
        tag,
        OCI_INDEX,
        json(serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [other, ours]})),
    );
    let mut chain: Vec<Digest> = Vec::new();
    for id in diff_ids {
        let next = chain.last().map_or(id.clone(), |parent| Digest::sha256(format!("{parent} {id}").as_bytes()));
        chain.push(next);
    }
    Served { index, manifest, config, layers, chain }
}

/// Waits until something holds, at most ten seconds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not in time: {what}");
}
