//! What a crash, a disk or another client took from the node is fetched again.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "../../registry/tests/fake/mod.rs"]
mod fake;
mod node;

use fake::{Fake, status};
use kevel_contract::transfer::Pull;
use kevel_model::{Code, Digest};
use node::{Node, Served, pull, scope, serve, tar, unpack};

const TREE: [&str; 2] = ["a=1", "b=2"];

async fn pulled(fake: &Fake) -> (Node, Served) {
    let node = Node::start().await;
    let served = serve(fake, "v1", &[tar(&[("a", "1")]), tar(&[("b", "2")])]);
    node.transfer.pull(&scope(), pull(fake, "a:v1", &["overlayfs"])).await.unwrap();
    node.collect().await;
    (node, served)
}

/// Damages one blob and pulls for another snapshotter, which needs all of them.
async fn check(which: fn(&Served) -> &Digest, damage: fn(&std::path::Path)) {
    let fake = Fake::start().await;
    let (node, served) = pulled(&fake).await;
    let digest = which(&served);
    damage(&node.blob(digest));
    let before = fake.asked(digest.as_str()).len();
    // What is here says that something is wrong, and a pull mends it.
    let name = fake.reference("a:v1").to_string();
    let error = node.transfer.unpack(&scope(), &name, unpack("native")).await.unwrap_err();
    let code = error.code();
    assert!([Code::NotFound, Code::DataLoss, Code::InvalidArgument].contains(&code), "{}", error.chain());
    assert!(node.unfinished("native").await.is_empty());
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["native"])).await.unwrap();
    assert_eq!(node.tree("native", &served.chain[1]).await, TREE);
    assert_eq!(fake.asked(digest.as_str()).len(), before + 1, "fetched again, once");
    let data = std::fs::read(node.blob(digest)).unwrap();
    assert_eq!(Digest::sha256(&data), *digest);
    // And what it refers to stays.
    node.collect().await;
    node.transfer.unpack(&scope(), &name, unpack("native")).await.unwrap();
    assert_eq!(node.tree("native", &served.chain[1]).await, TREE);
}

fn remove(path: &std::path::Path) {
    std::fs::remove_file(path).unwrap();
}

fn cut(path: &std::path::Path) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(5).unwrap();
}

fn change(path: &std::path::Path) {
    let mut data = std::fs::read(path).unwrap();
    let middle = data.len() / 2;
    data[middle] ^= 0xff;
    std::fs::write(path, data).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_layer_is_fetched_again() {
    check(|served| &served.layers[1].digest, remove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_layer_is_fetched_again() {
    check(|served| &served.layers[0].digest, cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_layer_is_fetched_again() {
    check(|served| &served.layers[1].digest, change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_fetched_again() {
    check(|served| &served.config.digest, remove).await;
    check(|served| &served.manifest.digest, cut).await;
    check(|served| &served.index.digest, change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_namespace_only_believes_to_have_is_not_adopted() {
    let fake = Fake::start().await;
    let (node, served) = pulled(&fake).await;
    remove(&node.blob(&served.layers[0].digest));
    let other = kevel_contract::Scope::new(kevel_model::Namespace::new("other").unwrap());
    node.transfer.pull(&other, pull(&fake, "a:v1", &["native"])).await.unwrap();
    assert!(node.blob(&served.layers[0].digest).exists());
    node.transfer.unpack(&scope(), &fake.reference("a:v1").to_string(), unpack("native")).await.unwrap();
    assert_eq!(node.tree("native", &served.chain[1]).await, TREE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_a_registry_lies_about_costs_nobody_else_anything() {
    let fake = Fake::start().await;
    let (node, served) = pulled(&fake).await;
    let mut lie = served.layers[0].clone();
    lie.size += 1;
    node::serve_as(&fake, "lie", vec![lie], &[served.chain[0].clone()]);
    let error = node.transfer.pull(&scope(), pull(&fake, "a:lie", &["native"])).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss, "{}", error.chain());
    assert!(node.blob(&served.layers[0].digest).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_layers_go_and_come_again_when_needed() {
    let fake = Fake::start().await;
    let node = Node::start().await;
    let served = serve(&fake, "v1", &[tar(&[("a", "1")]), tar(&[("b", "2")])]);
    let discarding = || Pull { discard_layers: true, ..pull(&fake, "a:v1", &["overlayfs"]) };
    node.transfer.pull(&scope(), discarding()).await.unwrap();
    node.collect().await;
    for layer in &served.layers {
        let error = node.stores.content.info(&scope(), &layer.digest).await.unwrap_err();
        assert!(error.is_not_found() && !node.blob(&layer.digest).exists());
    }
    assert_eq!(node.tree("overlayfs", &served.chain[1]).await, TREE);
    let layers = || served.layers.iter().map(|layer| fake.asked(layer.digest.as_str()).len()).sum::<usize>();
    node.transfer.pull(&scope(), discarding()).await.unwrap();
    assert_eq!(layers(), 2, "nothing is missing");
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["native"])).await.unwrap();
    assert_eq!((layers(), node.tree("native", &served.chain[1]).await.len()), (4, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_layer_survives_a_failed_pull() {
    let noise: String = (0..40_000u64).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let layer = tar(&[("noise", &noise)]);
    let packed = bytes::Bytes::from(node::gzip(&layer));
    let (whole, down) = (packed.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true)));
    let is_down = down.clone();
    let fake = Fake::with(move |asked, count| {
        let layer = asked.path.contains("/blobs/") && asked.header("accept") == Some("*/*");
        match count {
            _ if !layer || !is_down.load(std::sync::atomic::Ordering::SeqCst) => None,
            0 => Some(fake::broken(whole.slice(..whole.len() / 2), whole.len() as u64)),
            _ => Some(status(404, "gone for now")),
        }
    })
    .await;
    let node = Node::with("concurrent_layer_fetch_buffer = 1").await;
    let served = serve(&fake, "v1", &[layer]);
    let digest = served.layers[0].digest.as_str();
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs"])).await.unwrap_err();
    node.collect().await;
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs"])).await.unwrap();
    let asked = fake.asked(digest);
    let range = asked.last().unwrap().header("range").unwrap();
    let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!(from > 0 && from <= packed.len() / 2, "taken up at {from}");
    assert_eq!(node.tree("overlayfs", &served.chain[0]).await, [format!("noise={}", &noise[..20])]);
}
