//! Every namespaced store against the suite of its contract.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use kevel_contract::{container, content, image, lease, mounts, namespace, sandbox, snapshot};
use kevel_metadata::SharingPolicy;
use kevel_model::Mount;
use node::{Node, SNAPSHOTTER};

#[tokio::test(flavor = "multi_thread")]
async fn content_conforms() {
    for policy in [SharingPolicy::Shared, SharingPolicy::Isolated] {
        let factory = || async {
            let node = Node::with(policy).await;
            (node.stores.content.clone(), node)
        };
        content::suite::run(factory).await;
        content::suite::run_labels(factory).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_conform() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let mounter = |mounts: &[Mount], work: snapshot::suite::Look<'_>| {
        let done = kevel_mount::with_temp_mount(temp.path(), mounts, |path| {
            work(path);
            Ok::<_, kevel_mount::Error>(())
        });
        done.unwrap();
    };
    let factory = || async {
        let node = Node::new().await;
        (node.stores.snapshotters[SNAPSHOTTER].clone(), node)
    };
    snapshot::suite::run(factory, &mounter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_conform() {
    image::suite::run(|| async {
        let node = Node::new().await;
        (node.stores.images.clone(), node)
    })
    .await;
    container::suite::run(|| async {
        let node = Node::new().await;
        (node.stores.containers.clone(), node)
    })
    .await;
    sandbox::suite::run(|| async {
        let node = Node::new().await;
        (node.stores.sandboxes.clone(), node)
    })
    .await;
    lease::suite::run(|| async {
        let node = Node::new().await;
        (node.stores.leases.clone(), node)
    })
    .await;
    namespace::suite::run(|| async {
        let node = Node::new().await;
        (node.stores.namespaces.clone(), node)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_conform() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    mounts::suite::run(|| async {
        let node = Node::new().await;
        (node.stores.mounts.clone(), node)
    })
    .await;
}
