//! Pulls from a registry in this process into the real stores.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "../../registry/tests/fake/mod.rs"]
mod fake;
mod node;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use fake::{Fake, broken, stalled, status};
use kevel_contract::transfer::Pull;
use kevel_model::{Code, Descriptor, Digest, media_type::*};
use node::{Node, gzip, json, pull, scope, serve, serve_as, tar, unpack, until};

fn three_layers() -> Vec<Vec<u8>> {
    let big = "x".repeat(3 << 20);
    vec![
        tar(&[("etc/", ""), ("etc/a", "one"), ("etc/b", "one"), ("old/", ""), ("old/x", "x")]),
        tar(&[("etc/.wh.a", ""), ("etc/b", "two"), ("big", &big)]),
        tar(&[("old/.wh..wh..opq", ""), ("old/y", "y")]),
    ]
}

const TREE: [&str; 5] = ["big=xxxxxxxxxxxxxxxxxxxx", "etc/", "etc/b=two", "old/", "old/y=y"];

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_into_every_snapshotter() {
    let (node, fake) = (Node::start().await, Fake::start().await);
    let served = serve(&fake, "v1", &three_layers());
    let image = node.transfer.pull(&scope(), pull(&fake, "team/app:v1", &["overlayfs", "native"])).await.unwrap();
    assert_eq!(image.target, served.index);
    assert_eq!(node.stores.images.get(&scope(), &image.name).await.unwrap(), image);
    for snapshotter in ["overlayfs", "native"] {
        assert_eq!(node.tree(snapshotter, &served.chain[2]).await, TREE, "{snapshotter}");
        assert!(node.unfinished(snapshotter).await.is_empty());
        let top = node.stores.snapshotters[snapshotter].stat(&scope(), served.chain[2].as_str()).await.unwrap();
        assert_eq!(top.parent, served.chain[1].to_string());
    }
    assert_eq!(fake.asked("/blobs/").len(), 4, "each blob once");
    let labels = async |digest: &Digest| node.stores.content.info(&scope(), digest).await.unwrap().labels;
    let index = labels(&served.index.digest).await;
    assert_eq!(index["containerd.io/gc.ref.content.m.1"], served.manifest.digest.to_string());
    assert_eq!(index[&format!("containerd.io/distribution.source.{}", fake.host())], "team/app");
    let manifest = labels(&served.manifest.digest).await;
    assert_eq!(manifest["containerd.io/gc.ref.content.config"], served.config.digest.to_string());
    assert_eq!(manifest["containerd.io/gc.ref.content.l.2"], served.layers[2].digest.to_string());
    let config = labels(&served.config.digest).await;
    assert_eq!(config["containerd.io/gc.ref.snapshot.overlayfs"], served.chain[2].to_string());
    assert_eq!(labels(&served.layers[0].digest).await["containerd.io/uncompressed"], served.chain[0].to_string());
    // Nothing but the image keeps it all, and that is enough.
    until("the lease is gone", || async {
        node.stores.leases.list(&scope(), &Default::default()).await.unwrap().is_empty()
    })
    .await;
    node.stores.garbage.collect().await.unwrap();
    assert_eq!(node.tree("overlayfs", &served.chain[2]).await, TREE);
    node.transfer.pull(&scope(), pull(&fake, "team/app:v1", &["overlayfs"])).await.unwrap();
    assert_eq!(fake.asked("/blobs/").len(), 4, "nothing is fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_chain_is_unpacked_again() {
    let (node, fake) = (Node::start().await, Fake::start().await);
    let served = serve(&fake, "v1", &three_layers());
    let image = node.transfer.pull(&scope(), pull(&fake, "a:v1", &[])).await.unwrap();
    assert_eq!(fake.asked("/blobs/").len(), 4);
    node.transfer.unpack(&scope(), &image.name, unpack("overlayfs")).await.unwrap();
    assert_eq!(node.tree("overlayfs", &served.chain[2]).await, TREE);
    // Without its blobs it is "not found" locally, and a pull brings them.
    node.stores.content.delete(&scope(), &served.layers[1].digest).await.unwrap();
    let error = node.transfer.unpack(&scope(), &image.name, unpack("native")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{}", error.chain());
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["native"])).await.unwrap();
    assert_eq!(node.tree("native", &served.chain[2]).await, TREE);
    assert_eq!(fake.asked("/blobs/").len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_fetch_once() {
    let fake = Fake::start().await;
    let node = Node::start().await;
    let served = serve(&fake, "v1", &three_layers());
    let pulls = (0..8).map(|_| {
        let (transfer, pull) = (node.transfer.clone(), pull(&fake, "a:v1", &["overlayfs"]));
        tokio::spawn(async move { transfer.pull(&scope(), pull).await.unwrap() })
    });
    futures::future::try_join_all(pulls).await.unwrap();
    for layer in &served.layers {
        assert_eq!(fake.asked(&format!("GET /v2/a/blobs/{}", layer.digest)).len(), 1);
    }
    assert_eq!(node.tree("overlayfs", &served.chain[2]).await, TREE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_to_ask_may_leave() {
    let go = Arc::new(AtomicBool::new(false));
    let open = go.clone();
    // Layers fail for the moment until the gate opens, so that pulls are under way for as long as we like.
    let fake = Fake::with(move |asked, _| {
        let layer = asked.path.contains("/blobs/") && asked.header("accept") == Some("*/*");
        (layer && !open.load(Ordering::SeqCst)).then(|| status(503, ""))
    })
    .await;
    let node = Node::start().await;
    let served = serve(&fake, "v1", &[tar(&[("a", "1")])]);
    // Under other names, so that they are two pulls and share only the work.
    let start = |name: &str| {
        let pull = Pull { name: name.to_owned(), ..pull(&fake, "a:v1", &["overlayfs"]) };
        let transfer = node.transfer.clone();
        tokio::spawn(async move { transfer.pull(&scope(), pull).await })
    };
    let first = start("first");
    until("the first asks", || async { !fake.asked(served.layers[0].digest.as_str()).is_empty() }).await;
    let second = start("second");
    until("the second has begun", || async { fake.asked("HEAD").len() >= 2 }).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    go.store(true, Ordering::SeqCst);
    second.await.unwrap().unwrap();
    assert_eq!(node.tree("overlayfs", &served.chain[0]).await, ["a=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_nobody_waits_for_leaves_nothing() {
    let fake = Fake::with(|asked, _| {
        let layer = asked.path.contains("/blobs/") && asked.header("accept") == Some("*/*");
        layer.then(|| stalled(Bytes::from_static(b"\x1f\x8b"), 1000))
    })
    .await;
    let node = Node::start().await;
    let layer = Descriptor::new(OCI_LAYER_GZIP, Digest::sha256(b"never"), 1000);
    serve_as(&fake, "v1", vec![layer], &[Digest::sha256(b"x")]);
    let running = {
        let (transfer, pull) = (node.transfer.clone(), pull(&fake, "a:v1", &["overlayfs"]));
        tokio::spawn(async move { transfer.pull(&scope(), pull).await })
    };
    until("it unpacks", || async { !node.unfinished("overlayfs").await.is_empty() }).await;
    running.abort();
    until("it has cleaned up", || async { node.unfinished("overlayfs").await.is_empty() }).await;
    until("the lease is gone", || async {
        node.stores.leases.list(&scope(), &Default::default()).await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_layer_is_resumed_under_the_applier() {
    let layer = tar(&[("noise", &"0123456789abcdef".repeat(100_000)), ("end", "end")]);
    let packed = Bytes::from(gzip(&layer));
    let whole = packed.clone();
    let breaks = Arc::new(AtomicUsize::new(0));
    let count = breaks.clone();
    let fake = Fake::with(move |asked, _| {
        let layer = asked.path.contains("/blobs/") && asked.header("accept") == Some("*/*");
        (layer && count.fetch_add(1, Ordering::SeqCst) == 0)
            .then(|| broken(whole.slice(..whole.len() / 2), whole.len() as u64))
    })
    .await;
    let node = Node::start().await;
    let served = serve(&fake, "v1", &[layer]);
    node.transfer.pull(&scope(), pull(&fake, "a:v1", &["overlayfs"])).await.unwrap();
    assert_eq!(breaks.load(Ordering::SeqCst), 2);
    assert_eq!(node.tree("overlayfs", &served.chain[0]).await, ["end=end", "noise=0123456789abcdef0123"]);
}

/// An image with something wrong, and what is said about it.
struct Case {
    what: &'static str,
    serve: fn(&Fake),
    code: Code,
    says: &'static str,
}

fn config(fake: &Fake, value: serde_json::Value) -> Descriptor {
    fake.blob(OCI_CONFIG, json(value))
}

fn manifest(fake: &Fake, config: &Descriptor, layers: &[Descriptor]) {
    let value = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
    fake.manifest("bad", OCI_MANIFEST, json(value));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_image_has_its_error_and_leaves_nothing() {
    let cases = [
        Case { what: "no such image", serve: |_| (), code: Code::NotFound, says: "404" },
        Case {
            what: "an index that is no JSON",
            serve: |f| drop(f.manifest("bad", OCI_INDEX, "{")),
            code: Code::InvalidArgument,
            says: "index sha256:",
        },
        Case {
            what: "an index of nothing",
            serve: |f| drop(f.manifest("bad", OCI_INDEX, r#"{"manifests":[]}"#)),
            code: Code::NotFound,
            says: "has no manifest for linux/",
        },
        Case {
            what: "an index without manifests",
            serve: |f| drop(f.manifest("bad", OCI_INDEX, "{}")),
            code: Code::InvalidArgument,
            says: "missing field `manifests`",
        },
        Case {
            what: "an index with a bad digest",
            serve: |f| {
                drop(f.manifest(
                    "bad",
                    OCI_INDEX,
                    r#"{"manifests":[{"mediaType":"x","digest":"sha256:../..","size":1}]}"#,
                ));
            },
            code: Code::InvalidArgument,
            says: "index sha256:",
        },
        Case {
            what: "an index with a negative size",
            serve: |f| {
                drop(f.manifest(
                    "bad",
                    OCI_INDEX,
                    r#"{"manifests":[{"mediaType":"x","digest":"sha256:00","size":-1}]}"#,
                ));
            },
            code: Code::InvalidArgument,
            says: "index sha256:",
        },
        Case {
            what: "no manifest for us",
            serve: |f| {
                let mut other = Descriptor::new(OCI_MANIFEST, Digest::sha256(b""), 1);
                other.platform = Some("linux/s390x".parse().unwrap());
                f.manifest("bad", OCI_INDEX, json(serde_json::json!({"manifests": [other]})));
            },
            code: Code::NotFound,
            says: "only for linux/s390x",
        },
        Case {
            what: "a manifest that is not there",
            serve: |f| {
                let other = Descriptor::new(OCI_MANIFEST, Digest::sha256(b"gone"), 1);
                f.manifest("bad", OCI_INDEX, json(serde_json::json!({"manifests": [other]})));
            },
            code: Code::NotFound,
            says: "404",
        },
        Case {
            what: "an index that holds itself in turns",
            serve: |f| {
                let mut inner = f.manifest("0", OCI_INDEX, r#"{"manifests":[]}"#);
                for tag in ["1", "2", "3", "4", "bad"] {
                    inner = f.manifest(tag, OCI_INDEX, json(serde_json::json!({"manifests": [inner]})));
                }
            },
            code: Code::InvalidArgument,
            says: "nested too deep",
        },
        Case {
            what: "a manifest that is an index",
            serve: |f| drop(f.manifest("bad", OCI_MANIFEST, json(serde_json::json!({"mediaType": OCI_INDEX})))),
            code: Code::InvalidArgument,
            says: "was announced",
        },
        Case {
            what: "both at once",
            serve: |f| drop(f.manifest("bad", OCI_MANIFEST, r#"{"manifests":[],"layers":[]}"#)),
            code: Code::InvalidArgument,
            says: "both manifests and layers",
        },
        Case {
            what: "a manifest without config",
            serve: |f| drop(f.manifest("bad", OCI_MANIFEST, r#"{"layers":[]}"#)),
            code: Code::InvalidArgument,
            says: "missing field `config`",
        },
        Case {
            what: "a config that is not there",
            serve: |f| manifest(f, &Descriptor::new(OCI_CONFIG, Digest::sha256(b"gone"), 4), &[]),
            code: Code::NotFound,
            says: "404",
        },
        Case {
            what: "a config that is no JSON",
            serve: |f| manifest(f, &f.blob(OCI_CONFIG, "["), &[]),
            code: Code::InvalidArgument,
            says: "image config sha256:",
        },
        Case {
            what: "a huge config",
            serve: |f| manifest(f, &Descriptor::new(OCI_CONFIG, Digest::sha256(b""), 1 << 40), &[]),
            code: Code::ResourceExhausted,
            says: "larger than",
        },
        Case {
            what: "another platform",
            serve: |f| manifest(f, &config(f, serde_json::json!({"os": "linux", "architecture": "s390x"})), &[]),
            code: Code::NotFound,
            says: "is for linux/s390x",
        },
        Case {
            what: "diff ids too few",
            serve: |f| manifest(f, &config(f, serde_json::json!({})), &[f.blob(OCI_LAYER, tar(&[]))]),
            code: Code::InvalidArgument,
            says: "0 diff ids where the manifest has 1 layers",
        },
        Case {
            what: "a diff id that is none",
            serve: |f| manifest(f, &config(f, serde_json::json!({"rootfs": {"diff_ids": ["x"]}})), &[]),
            code: Code::InvalidArgument,
            says: "image config sha256:",
        },
        Case {
            what: "a wrong diff id",
            serve: |f| drop(serve_as(f, "bad", vec![f.blob(OCI_LAYER, tar(&[("a", "1")]))], &[Digest::sha256(b"x")])),
            code: Code::DataLoss,
            says: "where the image config says",
        },
        Case {
            what: "a layer that is not there",
            serve: |f| {
                drop(serve_as(
                    f,
                    "bad",
                    vec![Descriptor::new(OCI_LAYER, Digest::sha256(b"gone"), 4)],
                    &[Digest::sha256(b"x")],
                ));
            },
            code: Code::NotFound,
            says: "404",
        },
        Case {
            what: "a layer with other content",
            serve: |f| {
                let data = tar(&[("a", "1")]);
                let layer = Descriptor::new(OCI_LAYER, Digest::sha256(b"promised"), data.len() as u64);
                f.state.lock().unwrap().blobs.insert(layer.digest.to_string(), data.clone().into());
                serve_as(f, "bad", vec![layer], &[Digest::sha256(&data)]);
            },
            code: Code::DataLoss,
            says: "is not what was announced",
        },
        Case {
            what: "a layer of another size",
            serve: |f| {
                let mut layer = f.blob(OCI_LAYER, tar(&[("a", "1")]));
                layer.size += 1;
                serve_as(f, "bad", vec![layer], &[Digest::sha256(b"x")]);
            },
            code: Code::DataLoss,
            says: "were announced",
        },
        Case {
            what: "a layer that is no archive",
            serve: |f| {
                drop(serve_as(f, "bad", vec![f.blob(OCI_LAYER, vec![b'#'; 4096])], &[Digest::sha256(&[b'#'; 4096])]));
            },
            code: Code::InvalidArgument,
            says: "layer 0 (sha256:",
        },
        Case {
            what: "a truncated gzip",
            serve: |f| {
                let data = tar(&[("a", &"abc".repeat(50_000))]);
                let packed = gzip(&data);
                let layer = f.blob(OCI_LAYER_GZIP, packed[..packed.len() / 2].to_vec());
                serve_as(f, "bad", vec![layer], &[Digest::sha256(&data)]);
            },
            code: Code::InvalidArgument,
            says: "layer 0 (sha256:",
        },
        Case {
            what: "a layer that leaves its root",
            serve: |f| {
                let mut data = tar(&[("xx/evil", "1")]);
                data[..7].copy_from_slice(b"../evil");
                let sum: u32 = data[..148].iter().chain(&data[156..512]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
                data[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                serve_as(f, "bad", vec![f.blob(OCI_LAYER, data.clone())], &[Digest::sha256(&data)]);
            },
            code: Code::InvalidArgument,
            says: "../evil",
        },
        Case {
            what: "an encrypted layer",
            serve: |f| {
                let kind = "application/vnd.oci.image.layer.v1.tar+encrypted";
                serve_as(f, "bad", vec![f.blob(kind, "secret")], &[Digest::sha256(b"x")]);
            },
            code: Code::Unimplemented,
            says: "encrypted",
        },
    ];
    let node = Node::start().await;
    for Case { what, serve, code, says } in cases {
        let fake = Fake::start().await;
        serve(&fake);
        for snapshotter in ["overlayfs", "native"] {
            let error = node.transfer.pull(&scope(), pull(&fake, "team/bad:bad", &[snapshotter])).await.unwrap_err();
            let text = error.chain();
            assert_eq!(error.code(), code, "{what}: {text}");
            for part in [says, "team/bad:bad", &fake.host()] {
                assert!(text.contains(part), "{what}: {text:?} lacks {part:?}");
            }
            assert!(node.unfinished(snapshotter).await.is_empty(), "{what}");
            assert!(node.stores.images.list(&scope(), &Default::default()).await.unwrap().is_empty(), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused() {
    let (node, fake) = (Node::start().await, Fake::start().await);
    let check = async |pull: Pull, code: Code| {
        let error = node.transfer.pull(&scope(), pull).await.unwrap_err();
        assert_eq!(error.code(), code, "{}", error.chain());
    };
    check(Pull::default(), Code::InvalidArgument).await;
    check(Pull { reference: "busybox".into(), ..Pull::default() }, Code::InvalidArgument).await;
    check(pull(&fake, "a:v1", &["zfs"]), Code::NotFound).await;
    assert!(fake.asked("").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_made_and_moved() {
    let (node, fake) = (Node::start().await, Fake::start().await);
    let first = serve(&fake, "v1", &[tar(&[("a", "1")])]);
    let second = serve(&fake, "v2", &[tar(&[("a", "2")])]);
    for (tag, served) in [("v1", &first), ("v2", &second)] {
        let image = node.transfer.pull(&scope(), pull(&fake, &format!("a:{tag}"), &[])).await.unwrap();
        let tagged = node.transfer.tag(&scope(), &image.name, "local/a:now").await.unwrap();
        assert_eq!((tagged.name.as_str(), &tagged.target), ("local/a:now", &served.index));
    }
    let error = node.transfer.tag(&scope(), "none", "x").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}
