//! Every contract's suite over: handle, client, socket, service, the real store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use kevel_contract::{container, content, image, lease, mounts, namespace, sandbox, snapshot};
use kevel_model::Mount;
use node::{Node, SNAPSHOTTER};

#[tokio::test(flavor = "multi_thread")]
async fn content_conforms() {
    let factory = || async {
        let node = Node::new().await;
        (kevel_client::content(&node.remote()), node)
    };
    content::suite::run(factory).await;
    content::suite::run_labels(factory).await;
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
        (kevel_client::snapshotter(&node.remote(), SNAPSHOTTER), node)
    };
    snapshot::suite::run(factory, &mounter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_conform() {
    image::suite::run(|| async {
        let node = Node::new().await;
        (kevel_client::images(&node.remote()), node)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_conform() {
    container::suite::run(|| async {
        let node = Node::new().await;
        (kevel_client::containers(&node.remote()), node)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_conform() {
    sandbox::suite::run(|| async {
        let node = Node::new().await;
        (kevel_client::sandboxes(&node.remote()), node)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_conform() {
    lease::suite::run(|| async {
        let node = Node::new().await;
        (kevel_client::leases(&node.remote()), node)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_conform() {
    namespace::suite::run(|| async {
        let node = Node::new().await;
        (kevel_client::namespaces(&node.remote()), node)
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
        (kevel_client::mounts(&node.remote()), node)
    })
    .await;
}
