//! Pulls that are the same share one, whoever asked first; large layers come in parts; a registry that goes silent is not
//! waited for without end.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "../../registry/tests/fake/mod.rs"]
mod fake;
mod node;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fake::{Fake, stalled, status};
use kevel_contract::transfer::{Credentials, Pull};
use kevel_model::{Code, Descriptor, Digest, media_type::*};
use node::{Node, pull, scope, serve, serve_as, tar, until};
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread")]
async fn equal_pulls_resolve_once_and_have_one_result() {
    let (node, fake) = (Node::start().await, Fake::start().await);
    let served = serve(&fake, "v1", &[tar(&[("a", "1")])]);
    let (mut senders, mut listeners) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let (sender, listener) = mpsc::channel(256);
        senders.push(sender);
        listeners.push(listener);
    }
    // Polled in a row by one task: all have asked before the registry can have answered.
    let pulls = senders.into_iter().map(|progress| {
        let pull = Pull { progress: Some(progress), ..pull(&fake, "a:v1", &["overlayfs"]) };
        async { node.transfer.pull(&scope(), pull).await.unwrap() }
    });
    let images = futures::future::join_all(pulls).await;
    assert!(images.iter().all(|image| image == &images[0]));
    assert_eq!(fake.asked("HEAD").len(), 1, "resolved once");
    assert_eq!(fake.asked(served.layers[0].digest.as_str()).len(), 1);
    for listener in &mut listeners {
        let mut events = Vec::new();
        while let Some(progress) = listener.recv().await {
            events.push(progress.event);
        }
        assert_eq!(events.last().map(String::as_str), Some("saved"), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_credentials_make_another_pull() {
    let (node, fake) = (Node::start().await, Fake::start().await);
    serve(&fake, "v1", &[tar(&[("a", "1")])]);
    let pulls = ["one", "two"].map(|secret| {
        let mut pull = pull(&fake, "a:v1", &["overlayfs"]);
        let (username, secret) = ("u".to_owned(), secret.to_owned());
        pull.registry.credentials = Some(Credentials { username, secret, ..Credentials::default() });
        async { node.transfer.pull(&scope(), pull).await.unwrap() }
    });
    futures::future::join_all(pulls).await;
    assert_eq!(fake.asked("HEAD").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_may_hang_up_and_the_last_ends_it() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let fake = Fake::with(move |asked, _| {
        let layer = asked.path.contains("/blobs/") && asked.header("accept") == Some("*/*");
        (layer && !gate.load(Ordering::SeqCst)).then(|| status(503, ""))
    })
    .await;
    let node = Node::start().await;
    let served = serve(&fake, "v1", &[tar(&[("a", "1")])]);
    let start = || {
        let (transfer, pull) = (node.transfer.clone(), pull(&fake, "a:v1", &["overlayfs"]));
        let (asking, asked) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut pulling = std::pin::pin!(async { transfer.pull(&scope(), pull).await });
            // Asked once, so that it has joined.
            assert!(futures::poll!(pulling.as_mut()).is_pending());
            let _ = asking.send(()); // the first is not waited for
            pulling.await
        });
        (task, asked)
    };
    let layer = served.layers[0].digest.as_str();
    let (first, _) = start();
    until("the first asks", || async { !fake.asked(layer).is_empty() }).await;
    let (second, joined) = start();
    joined.await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let before = fake.asked(layer).len();
    until("it goes on", || async { fake.asked(layer).len() > before }).await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    node.collect().await; // nothing holds the lease: it has ended
    assert!(node.unfinished("overlayfs").await.is_empty());
    assert_eq!(fake.asked("HEAD").len(), 1);
    open.store(true, Ordering::SeqCst);
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_layers_come_in_parts_and_are_applied_as_they_come() {
    let fake = Fake::start().await;
    let node = Node::with("concurrent_layer_fetch_buffer = 65536\nmax_bytes_in_flight = 131072").await;
    let noise: String = (0..60_000u64).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let served = serve(&fake, "v1", &[tar(&[("noise", &noise)]), tar(&[("more", &noise[7..])])]);
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs"])).await.unwrap();
    let tree = node.tree("overlayfs", &served.chain[1]).await;
    assert_eq!(tree, [format!("more={}", &noise[7..27]), format!("noise={}", &noise[..20])]);
    for layer in &served.layers {
        let asked = fake.asked(layer.digest.as_str());
        assert_eq!(asked.len() as u64, layer.size.div_ceil(65536), "{} bytes", layer.size);
        assert!(asked.len() > 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_registry_is_given_up() {
    let fake = Fake::with(|asked, _| {
        let layer = asked.path.contains("/blobs/") && asked.header("accept") == Some("*/*");
        layer.then(|| stalled(Bytes::from_static(b"\x1f\x8b"), 1000))
    })
    .await;
    let node = Node::start().await;
    let layer = Descriptor::new(OCI_LAYER_GZIP, Digest::sha256(b"never"), 1000);
    serve_as(&fake, "v1", vec![layer], &[Digest::sha256(b"x")]);
    let progress_timeout = Some(Duration::from_millis(300));
    let pull = Pull { progress_timeout, ..pull(&fake, "a:v1", &["overlayfs"]) };
    let error = node.transfer.pull(&scope(), pull).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{}", error.chain());
    assert!(error.chain().contains("for 300ms"), "{}", error.chain());
    assert!(node.unfinished("overlayfs").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_registry_holds_up_nobody_else() {
    let slow = Fake::with(|asked, _| {
        let layer = asked.path.contains("/blobs/") && asked.header("accept") == Some("*/*");
        layer.then(|| stalled(Bytes::from_static(b"\x1f\x8b"), 1000))
    })
    .await;
    let layers = (0..8u8).map(|n| Descriptor::new(OCI_LAYER_GZIP, Digest::sha256(&[n]), 1000));
    let ids: Vec<_> = (10..18u8).map(|n| Digest::sha256(&[n])).collect();
    serve_as(&slow, "v1", layers.collect(), &ids);
    let (node, quick) = (Node::start().await, Fake::start().await);
    let served = serve(&quick, "v1", &[tar(&[("a", "1")]), tar(&[("b", "2")])]);
    let stuck = {
        let (transfer, pull) = (node.transfer.clone(), pull(&slow, "a:v1", &["overlayfs"]));
        tokio::spawn(async move { transfer.pull(&scope(), pull).await })
    };
    until("it unpacks as much as it may", || async { node.unfinished("overlayfs").await.len() >= 2 }).await;
    let other = async { node.transfer.pull(&scope(), pull(&quick, "b:v1", &["overlayfs"])).await };
    tokio::time::timeout(Duration::from_secs(30), other).await.expect("not held up").unwrap();
    assert_eq!(node.tree("overlayfs", &served.chain[1]).await, ["a=1", "b=2"]);
    stuck.abort();
}
