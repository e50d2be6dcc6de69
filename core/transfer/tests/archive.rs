//! Images out of the node and into another one: archives and pushes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "../../registry/tests/fake/mod.rs"]
mod fake;
mod node;

use std::{
    io::{Cursor, Read as _},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use fake::Fake;
use kevel_contract::transfer::{Export, Import, Push};
use kevel_model::{Code, Digest};
use node::{Node, gzip, pull, scope, serve, tar, unpack};
use tokio::io::AsyncWrite;

/// An archive sink that keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn layers() -> Vec<Vec<u8>> {
    vec![tar(&[("a", "1"), ("b", "1")]), tar(&[(".wh.a", ""), ("c", "3")])]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_can_be_imported() {
    let (from, fake) = (Node::start().await, Fake::start().await);
    let served = serve(&fake, "v1", &layers());
    let image = from.transfer.pull(&scope(), pull(&fake, "team/app:v1", &[])).await.unwrap();
    let sink = Kept::default();
    let export = Export { names: vec![image.name.clone()], ..Export::default() };
    from.transfer.export(&scope(), Box::pin(sink.clone()), export).await.unwrap();
    let archive = sink.0.lock().unwrap().clone();

    // An independent reader agrees that it is an archive, and Docker finds its list.
    let mut names = Vec::new();
    let mut list = String::new();
    for entry in tar::Archive::new(Cursor::new(&archive)).entries().unwrap() {
        let mut entry = entry.unwrap();
        names.push(entry.path().unwrap().display().to_string());
        if names.last().is_some_and(|name| name == "manifest.json") {
            entry.read_to_string(&mut list).unwrap();
        }
    }
    assert_eq!(names[..3], ["oci-layout", "index.json", "manifest.json"]);
    assert_eq!(names.len(), 3 + 5, "index, manifest, config and two layers");
    assert!(list.contains(&format!("blobs/sha256/{}", served.config.digest.encoded())), "{list}");

    let to = Node::start().await;
    let import =
        Import { unpack: vec![unpack("overlayfs")], extra_names: vec!["local/x:y".into()], ..Import::default() };
    let images = to.transfer.import(&scope(), Box::pin(Cursor::new(archive)), import).await.unwrap();
    let mut names: Vec<&str> = images.iter().map(|image| image.name.as_str()).collect();
    names.sort_unstable();
    let mut want = [image.name.as_str(), "local/x:y"];
    want.sort_unstable();
    assert_eq!(names, want);
    assert_eq!(images[0].target.digest, served.index.digest);
    assert_eq!(to.tree("overlayfs", &served.chain[1]).await, ["b=1", "c=3"]);
    let labels = to.stores.content.info(&scope(), &served.manifest.digest).await.unwrap().labels;
    assert_eq!(labels["containerd.io/gc.ref.content.l.1"], served.layers[1].digest.to_string());
}

/// `docker save` of old: layers in directories of their own, one of them a link.
fn docker_archive() -> (Vec<u8>, Vec<Digest>) {
    let layers = layers();
    let ids: Vec<Digest> = [&layers[0], &layers[1], &layers[1]].iter().map(|layer| Digest::sha256(layer)).collect();
    let host = kevel_model::Platform::host();
    let config = serde_json::json!({
        "architecture": host.architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids},
    })
    .to_string();
    let list = r#"[{"Config":"cfg.json","RepoTags":["app:1"],"Layers":["0/layer.tar","1/layer.tar","2/layer.tar"]}]"#;
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, data).unwrap();
    };
    add("0/layer.tar", &layers[0]);
    add("1/layer.tar", &gzip(&layers[1]));
    add("cfg.json", config.as_bytes());
    add("manifest.json", list.as_bytes());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "2/layer.tar", "../1/layer.tar").unwrap();
    let mut chain: Vec<Digest> = Vec::new();
    for id in ids {
        chain.push(chain.last().map_or(id.clone(), |parent| Digest::sha256(format!("{parent} {id}").as_bytes())));
    }
    (builder.into_inner().unwrap(), chain)
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_archives_are_imported() {
    let node = Node::start().await;
    let (archive, chain) = docker_archive();
    let import = Import { unpack: vec![unpack("overlayfs")], ..Import::default() };
    let images = node.transfer.import(&scope(), Box::pin(Cursor::new(archive)), import).await.unwrap();
    assert_eq!(images[0].name, "docker.io/library/app:1");
    assert_eq!(node.tree("overlayfs", &chain[2]).await, ["b=1", "c=3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_archives_are_refused() {
    let node = Node::start().await;
    let (good, _) = docker_archive();
    let blob = format!("blobs/sha256/{}", Digest::sha256(b"promised").encoded());
    let mut flipped = good.clone();
    flipped[150] ^= 1;
    for (what, archive, says) in [
        ("nothing", Vec::new(), "neither index.json nor manifest.json"),
        ("noise", vec![b'#'; 4096], "a number that is none"),
        ("a flipped bit", flipped, "wrong checksum"),
        ("cut short", good[..700].to_vec(), ""),
        ("no lists", tar(&[("a", "1")]), "neither index.json nor manifest.json"),
        ("a list that is no JSON", tar(&[("manifest.json", "{")]), "reading manifest.json"),
        ("an index that is no JSON", tar(&[("index.json", "{")]), "reading index.json"),
        ("a missing file", tar(&[("manifest.json", r#"[{"Config":"c","Layers":[]}]"#)]), "which is not in the archive"),
        ("a blob of another digest", tar(&[(&blob, "other")]), "has digest"),
        ("a blob that is no digest", tar(&[("blobs/sha256/x", "1")]), "is not 64"),
        ("nobody's image", tar(&[("index.json", r#"{"manifests":[]}"#)]), "names no image"),
    ] {
        let archive = Box::pin(Cursor::new(archive));
        let error = node.transfer.import(&scope(), archive, Import::default()).await.unwrap_err();
        assert!(error.chain().contains(says), "{what}: {}", error.chain());
    }
    assert!(node.stores.images.list(&scope(), &Default::default()).await.unwrap().is_empty());
    let nothing = node.transfer.export(&scope(), Box::pin(Kept::default()), Export::default()).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_to_another_registry() {
    let (node, fake, other) = (Node::start().await, Fake::start().await, Fake::start().await);
    let served = serve(&fake, "v1", &layers());
    let image = node.transfer.pull(&scope(), pull(&fake, "a:v1", &[])).await.unwrap();
    let push = Push {
        name: image.name,
        reference: other.reference("b/c:new").to_string(),
        platforms: vec![kevel_model::Platform::host()],
        ..Push::default()
    };
    for _ in 0..2 {
        node.transfer.push(&scope(), push.clone()).await.unwrap();
    }
    assert_eq!(other.asked("PUT /v2/b/c/blobs").len(), 3, "what is there is not uploaded again");
    let second = Node::start().await;
    let pulled = second.transfer.pull(&scope(), pull(&other, "b/c:new", &["overlayfs"])).await.unwrap();
    assert_eq!(pulled.target.digest, served.manifest.digest);
    assert_eq!(second.tree("overlayfs", &served.chain[1]).await, ["b=1", "c=3"]);
}
