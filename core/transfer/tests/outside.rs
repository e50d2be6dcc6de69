//! What others do for a pull: verifiers judge it, stream processors decode layers, remote snapshotters bring them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "../../registry/tests/fake/mod.rs"]
mod fake;
mod node;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use fake::Fake;
use kevel_contract::{
    Scope,
    call::Target,
    snapshot::{Backend, Commit, Info, Snapshotter, Usage},
    transfer::Transfer,
};
use kevel_model::{Code, Digest, Error, Filters, Labels, Mount, Result};
use kevel_transfer::{Config, Parts, Service, Snapshotting};
use node::{Node, VERIFIERS, gzip, pull, scope, script, serve, serve_as, tar};

const SECRET: &str = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
const PROCESSORS: &str = "io.containerd.internal.v1.stream-processors";

/// A node with these verifiers.
async fn verified(dir: &std::path::Path, more: &str, scripts: &[(&str, &str)]) -> Node {
    for (name, text) in scripts {
        script(&dir.join(name), text);
    }
    Node::with_tables(&[(VERIFIERS, &format!("bin_dir = {dir:?}\n{more}"))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn verifiers_are_told_the_image_and_allow_it() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start().await);
    let served = serve(&fake, "v1", &[tar(&[("a", "1")])]);
    let (bin, told) = (dir.path().join("bin"), dir.path().join("told"));
    let text = format!("echo \"$@\" > {0}; cat >> {0}; echo fine", told.display());
    let node = verified(&bin, "", &[("a", &text), ("b", "exit 0")]).await;
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs"])).await.unwrap();
    let told = std::fs::read_to_string(told).unwrap();
    let (arguments, descriptor) = told.split_once('\n').unwrap();
    let (name, digest) = (fake.reference("a:v1"), &served.index.digest);
    assert_eq!(
        arguments,
        format!("-name {name} -digest {digest} -stdin-media-type application/vnd.oci.descriptor.v1+json")
    );
    let descriptor: serde_json::Value = serde_json::from_str(descriptor).unwrap();
    assert_eq!(descriptor["digest"], digest.as_str());
    assert_eq!(descriptor["size"], served.index.size);
}

#[tokio::test(flavor = "multi_thread")]
async fn verifiers_refuse_and_nothing_is_fetched() {
    let fake = Fake::start().await;
    serve(&fake, "v1", &[tar(&[("a", "1")])]);
    let check = async |more: &str, scripts: &[(&str, &str)], want: Option<(Code, &str)>| {
        let dir = tempfile::tempdir().unwrap();
        let node = verified(&dir.path().join("bin"), more, scripts).await;
        let before = fake.asked("GET").len();
        let pulled = node.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs"])).await;
        let Some((code, says)) = want else { return drop(pulled.unwrap()) };
        let error = pulled.unwrap_err();
        assert_eq!(error.code(), code, "{}", error.chain());
        assert!(error.chain().contains(says), "{}", error.chain());
        assert_eq!(fake.asked("GET").len(), before);
    };
    let refused = Some((Code::PermissionDenied, "verifier b rejected the image (exit status: 3): not signed"));
    check("", &[("a", "exit 0"), ("b", "echo not signed; exit 3"), ("c", "exit 0")], refused).await;
    check("max_verifiers = 1", &[("a", "exit 0"), ("b", "exit 3")], None).await;
    check("max_verifiers = -1", &[("a", "exit 0"), ("b", "exit 3")], Some((Code::PermissionDenied, "verifier b")))
        .await;
    check("max_verifiers = 0", &[("b", "exit 3")], None).await;
    let slow = Some((Code::DeadlineExceeded, "image verifier a did not answer within 200ms"));
    let started = Instant::now();
    check("per_verifier_timeout = \"200ms\"", &[("a", "exec sleep 60")], slow).await;
    assert!(started.elapsed() < Duration::from_secs(30));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "not a program").unwrap();
    let node = verified(dir.path(), "", &[]).await;
    let error = node.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs"])).await.unwrap_err();
    assert!(error.chain().contains("running image verifier a"), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_layers_go_through_a_stream_processor() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::start().await);
    // Encrypted by turning every byte around.
    let turn = "exec tr '\\000-\\377' '\\200-\\377\\000-\\177'";
    script(&dir.path().join("decode"), turn);
    let table = format!(
        "[\"io.containerd.ocicrypt.decoder.v1.tar.gzip\"]\naccepts = [\"{SECRET}\"]\n\
         returns = \"application/vnd.oci.image.layer.v1.tar+gzip\"\npath = {:?}",
        dir.path().join("decode")
    );
    let node = Node::with_tables(&[(PROCESSORS, &table)]).await;
    let plain = tar(&[("secret", &"s".repeat(100_000))]);
    let hidden: Vec<u8> = gzip(&plain).iter().map(|byte| byte ^ 0x80).collect();
    let served = serve_as(&fake, "v1", vec![fake.blob(SECRET, hidden)], &[Digest::sha256(&plain)]);
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs", "native"])).await.unwrap();
    for snapshotter in ["overlayfs", "native"] {
        assert_eq!(node.tree(snapshotter, &served.chain[0]).await, [format!("secret={}", "s".repeat(20))]);
    }
    // Without a key it is an error in the words of the tool.
    let other = Node::with_tables(&[(PROCESSORS, &table)]).await;
    script(&dir.path().join("decode"), "echo missing private key needed for decryption >&2; exit 1");
    let error = other.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs"])).await.unwrap_err();
    assert!(error.chain().contains("missing private key needed for decryption"), "{}", error.chain());
    assert!(other.unfinished("overlayfs").await.is_empty());
}

/// A snapshotter that has every layer somewhere else, as lazy ones do.
struct Remote {
    behind: Snapshotter,
    asked: Arc<Mutex<Vec<Labels>>>,
}

#[async_trait]
impl Backend for Remote {
    async fn stat(&self, scope: &Scope, key: &str) -> Result<Info> {
        self.behind.stat(scope, key).await
    }
    async fn update(&self, scope: &Scope, info: Info, fieldpaths: &[String]) -> Result<Info> {
        self.behind.update(scope, info, fieldpaths).await
    }
    async fn usage(&self, scope: &Scope, key: &str) -> Result<Usage> {
        self.behind.usage(scope, key).await
    }
    async fn mounts(&self, scope: &Scope, key: &str) -> Result<Vec<Mount>> {
        self.behind.mounts(scope, key).await
    }
    async fn prepare(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.asked.lock().unwrap().push(labels.clone());
        let mounts = self.behind.prepare(scope, key, parent, labels.clone()).await?;
        match labels.get("containerd.io/snapshot.ref") {
            Some(target) if labels.contains_key("containerd.io/snapshot/cri.layer-digest") => {
                self.behind.commit(scope, target, key, Commit { labels: labels.clone(), parent: None }).await?;
                Err(Error::already_exists(format!("target snapshot {target:?}")))
            }
            _ => Ok(mounts),
        }
    }
    async fn view(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.behind.view(scope, key, parent, labels).await
    }
    async fn commit(&self, scope: &Scope, name: &str, key: &str, commit: Commit) -> Result<()> {
        self.behind.commit(scope, name, key, commit).await
    }
    async fn remove(&self, scope: &Scope, key: &str) -> Result<()> {
        self.behind.remove(scope, key).await
    }
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Info>> {
        self.behind.list(scope, filters).await
    }
    async fn cleanup(&self, scope: &Scope) -> Result<()> {
        self.behind.cleanup(scope).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_snapshotter_brings_the_layers_itself() {
    let (node, fake) = (Node::start().await, Fake::start().await);
    let served = serve(&fake, "v1", &[tar(&[("a", "1")]), tar(&[("b", "2")])]);
    for (annotate, annotates) in [(true, false), (false, true), (false, false)] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let behind = node.stores.snapshotters["native"].clone();
        let remote = Snapshotter::new(Target::local("remote"), Remote { behind, asked: asked.clone() });
        let snapshotting = Snapshotting { snapshotter: remote, rebases: false, annotates };
        let service = Service::new(
            Config::default(),
            Parts {
                stores: node.stores.clone(),
                snapshotters: BTreeMap::from([("remote".to_owned(), snapshotting)]),
                verifiers: BTreeMap::new(),
                processors: Default::default(),
                mounts: node.root.path().join("scratch"),
            },
        );
        let transfer = Transfer::new(Target::local("transfer"), service);
        let before = fake.asked("/blobs/").len();
        let mut pull = pull(&fake, "a:v1", &["remote"]);
        pull.unpack[0].annotate = annotate;
        transfer.pull(&scope(), pull).await.unwrap();
        let layers = &fake.asked("/blobs/")[before..];
        let fetched = layers.iter().filter(|asked| asked.header("accept") == Some("*/*")).count();
        let labels = std::mem::take(&mut *asked.lock().unwrap());
        if annotate || annotates {
            assert_eq!(fetched, 0, "no layer is fetched");
            let label = |index: usize, name: &str| labels[index][&format!("containerd.io/snapshot/cri.{name}")].clone();
            assert_eq!(label(0, "image-ref"), fake.reference("a:v1").to_string());
            assert_eq!(label(1, "layer-digest"), served.layers[1].digest.to_string());
            assert_eq!(label(0, "manifest-digest"), served.manifest.digest.to_string());
            let all = format!("{},{}", served.layers[0].digest, served.layers[1].digest);
            assert_eq!(label(0, "image-layers"), all);
        } else {
            assert_eq!(fetched, 2, "nobody told it, so it could not know");
            assert!(labels.iter().all(|labels| !labels.contains_key("containerd.io/snapshot/cri.layer-digest")));
        }
        for chain in served.chain.iter().rev() {
            let _ = node.stores.snapshotters["native"].remove(&scope(), chain.as_str()).await;
        }
    }
}
