//! What the stores promise together: namespaces, sharing, leases, events, collection, and survival.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod node;

use std::path::Path;

use futures::{StreamExt as _, future};
use kevel_contract::{
    Scope,
    call::Target,
    container::{Container, Runtime},
    content::{Begin, Commit},
    image::Delete,
    lease::{LABEL_EXPIRE, Resource},
    mounts::{Activate, Activation},
    snapshot::{self, Snapshotter},
};
use kevel_database::{Database, crash::Disk};
use kevel_metadata::{SCHEMA, SharingPolicy};
use kevel_model::{Any, Code, Digest, Error, Filters, Labels, Mount, Result};
use node::{Node, SNAPSHOTTER, label, scope};

fn container(id: &str, snapshot: &str) -> Container {
    Container {
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: None },
        spec: Some(Any::new("spec", "{}")),
        snapshotter: SNAPSHOTTER.into(),
        snapshot_key: snapshot.into(),
        ..Container::new(id)
    }
}

#[tokio::test]
async fn a_blob_known_elsewhere_is_adopted_by_digest_when_shared() {
    for (policy, adopted) in [(SharingPolicy::Shared, true), (SharingPolicy::Isolated, false)] {
        let node = Node::with(policy).await;
        let digest = node.put(&scope("one"), "data", &[]).await;
        let two = scope("two");
        assert_eq!(node.stores.content.open(&two, &digest).await.err().unwrap().code(), Code::NotFound);
        let begin = Begin { reference: "r".into(), total: 4, expected: Some(digest.clone()) };
        let mut ingest = node.stores.content.begin(&two, begin).await.unwrap();
        assert_eq!(ingest.status().offset, if adopted { 4 } else { 0 }, "{policy:?}");
        assert_eq!(node.stores.content.status(&two, "r").await.unwrap().offset, if adopted { 4 } else { 0 });
        if !adopted {
            ingest.write("data".into()).await.unwrap();
        }
        let wrong = Commit { size: 5, ..Commit::default() };
        assert_eq!(ingest.commit(wrong).await.unwrap_err().code(), Code::FailedPrecondition);
        let right = Commit { size: 4, labels: label(&[("a", "1")]), ..Commit::default() };
        assert_eq!(ingest.commit(right).await.unwrap(), digest);
        assert_eq!(node.stores.content.info(&two, &digest).await.unwrap().labels, label(&[("a", "1")]));
        assert!(node.stores.content.info(&scope("one"), &digest).await.unwrap().labels.is_empty());
        assert!(node.stores.content.statuses(&two, &Filters::default()).await.unwrap().is_empty());
        node.stores.content.delete(&scope("one"), &digest).await.unwrap();
        node.collect().await;
        // The other namespace labelled nothing and leased nothing, so it is gone there too; a put makes it anew.
        assert_eq!(node.below().await.0, 0);
        node.put(&two, "data", &[]).await;
    }
}

#[tokio::test]
async fn namespaces_are_deleted_only_when_empty() {
    let node = Node::new().await;
    let space = scope("full");
    let digest = node.put(&space, "data", &[]).await;
    node.layer(&space, "layer", "", &[]).await;
    node.image(&space, "image", &digest).await;
    node.stores.containers.create(&space, container("c", "layer")).await.unwrap();
    node.stores.leases.create(&space, "lease", Labels::new()).await.unwrap();
    let refused = node.stores.namespaces.delete(&space.namespace).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let text = refused.to_string();
    for what in ["images", "content", "snapshots", "containers", "leases"] {
        assert!(text.contains(what), "{text}");
    }
    assert!(node.names(&scope("other")).await.is_empty() && node.blobs(&scope("other")).await.is_empty());
    node.stores.containers.delete(&space, "c").await.unwrap();
    node.stores.leases.delete(&space, "lease", false).await.unwrap();
    node.stores.images.delete(&space, "image", Delete { sync: true, target: None }).await.unwrap();
    node.stores.namespaces.delete(&space.namespace).await.unwrap();
    node.collect().await; // storage is freed after the answer, by a run that this one waits for
    assert_eq!(node.below().await, (0, 0));
}

#[tokio::test]
async fn an_image_keeps_what_it_is_made_of_and_its_removal_frees_it() {
    let node = Node::new().await;
    let space = scope("k8s.io");
    node.layer(&space, "bottom", "", &[]).await;
    node.layer(&space, "top", "bottom", &[]).await;
    let layer = node.put(&space, "layer", &[]).await;
    let snapshot = format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}");
    let config = node.put(&space, "config", &[(&snapshot, "top")]).await;
    let labels = [
        ("containerd.io/gc.ref.content.config", config.as_str()),
        ("containerd.io/gc.ref.content.l.0", layer.as_str()),
    ];
    let manifest = node.put(&space, "manifest", &labels).await;
    node.image(&space, "image", &manifest).await;
    node.put(&space, "loose", &[]).await;
    let collected = node.collect().await;
    assert_eq!((collected.blobs, collected.snapshots), (1, 0));
    assert_eq!(node.below().await, (3, 2));
    // A running container keeps its root file system.
    node.snapshotter().prepare(&space, "rootfs", "top", Labels::new()).await.unwrap();
    node.stores.containers.create(&space, container("c", "rootfs")).await.unwrap();
    node.stores.images.delete(&space, "image", Delete { sync: true, target: None }).await.unwrap();
    assert_eq!(node.collect().await, Default::default(), "nothing is left to forget");
    assert_eq!(node.below().await, (0, 3));
    node.stores.containers.delete(&space, "c").await.unwrap();
    assert_eq!(node.collect().await.snapshots, 3);
    assert_eq!(node.below().await, (0, 0));
}

#[tokio::test]
async fn leases_keep_what_is_made_under_them() {
    let node = Node::new().await;
    let space = scope("k8s.io");
    let lease = space.with_lease("pull");
    let nowhere = node.snapshotter().prepare(&lease, "key", "", Labels::new()).await.unwrap_err();
    assert_eq!(nowhere.code(), Code::NotFound, "a lease that is not there protects nothing");
    assert_eq!(node.below().await.1, 0, "and nothing is left of the attempt");
    node.stores.leases.create(&space, "pull", Labels::new()).await.unwrap();
    let digest = node.put(&lease, "data", &[]).await;
    node.layer(&lease, "layer", "", &[]).await;
    let mut ingest =
        node.stores.content.begin(&lease, Begin { reference: "part".into(), ..Begin::default() }).await.unwrap();
    ingest.write("half".into()).await.unwrap();
    drop(ingest);
    node.collect().await;
    assert_eq!((node.blobs(&space).await, node.names(&space).await), (vec![digest.clone()], vec!["layer".to_owned()]));
    let mut kinds: Vec<_> = node.stores.leases.resources(&space, "pull").await.unwrap();
    kinds.sort();
    let want = [("content", digest.as_str()), ("ingests", "part"), ("snapshots/native", "layer")];
    let resource = |(kind, id): (&str, &str)| Resource { kind: kind.into(), id: id.into() };
    assert_eq!(kinds, want.map(resource));
    node.stores.leases.delete(&space, "pull", true).await.unwrap();
    assert_eq!(node.below().await, (0, 0));
}

#[tokio::test]
async fn leases_keep_what_was_there_already() {
    let node = Node::new().await;
    let space = scope("k8s.io");
    let digest = node.put(&space, "data", &[]).await;
    node.layer(&space, "layer", "", &[]).await;
    node.stores.leases.create(&space, "pull", Labels::new()).await.unwrap();
    let lease = space.with_lease("pull");
    let begin = Begin { reference: "r".into(), total: 0, expected: Some(digest.clone()) };
    assert_eq!(node.stores.content.begin(&lease, begin).await.err().unwrap().code(), Code::AlreadyExists);
    let commit = node.snapshotter().commit(&lease, "layer", "none", Default::default());
    assert_eq!(commit.await.unwrap_err().code(), Code::AlreadyExists);
    node.collect().await;
    assert_eq!((node.blobs(&space).await, node.names(&space).await), (vec![digest], vec!["layer".to_owned()]));
}

#[tokio::test]
async fn leases_run_out() {
    let node = Node::new().await;
    let space = scope("k8s.io");
    for (id, expire) in [("past", "2001-01-01T00:00:00Z"), ("future", "2901-01-01T00:00:00Z")] {
        node.stores.leases.create(&space, id, label(&[(LABEL_EXPIRE, expire)])).await.unwrap();
        node.put(&space.with_lease(id), id, &[]).await;
    }
    let collected = node.collect().await;
    assert_eq!((collected.leases, collected.blobs), (1, 1));
    assert_eq!(node.blobs(&space).await, [Digest::sha256(b"future")]);
    assert_eq!(node.stores.leases.list(&space, &Filters::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn backends_keep_nothing_without_a_record_but_what_is_not_ours() {
    let node = Node::new().await;
    let any = scope("any");
    // As a crash between a backend and its record leaves it: a chain, a blob, an ingest.
    node.snapshots.prepare(&any, "ns/7/parent-key", "", Labels::new()).await.unwrap();
    node.snapshots.commit(&any, "ns/8/parent", "ns/7/parent-key", Default::default()).await.unwrap();
    node.snapshots.prepare(&any, "ns/9/child", "ns/8/parent", Labels::new()).await.unwrap();
    node.snapshots.prepare(&any, "foreign", "", Labels::new()).await.unwrap();
    node.content.put(&any, "r", "orphan".into(), Labels::new()).await.unwrap();
    for reference in ["ns/9/ingest", "foreign"] {
        node.content.begin(&any, Begin { reference: reference.into(), ..Begin::default() }).await.unwrap();
    }
    node.collect().await;
    assert_eq!(node.below().await, (0, 1));
    let left = node.content.statuses(&any, &Filters::default()).await.unwrap();
    assert_eq!(left.iter().map(|status| status.reference.as_str()).collect::<Vec<_>>(), ["foreign"]);
}

#[tokio::test]
async fn changes_are_told() {
    let node = Node::new().await;
    let space = scope("k8s.io");
    let mut events = node.events.subscribe(&Filters::default()).await.unwrap();
    let digest = node.put(&space, "data", &[]).await;
    node.layer(&space, "layer", "", &[]).await;
    node.image(&space, "image", &digest).await;
    node.stores.containers.create(&space, container("c", "layer")).await.unwrap();
    node.stores.containers.delete(&space, "c").await.unwrap();
    node.stores.images.delete(&space, "image", Delete { sync: true, target: None }).await.unwrap();
    for (topic, name) in [
        ("/content/create", "containerd.events.ContentCreate"),
        ("/snapshot/prepare", "containerd.events.SnapshotPrepare"),
        ("/snapshot/commit", "containerd.events.SnapshotCommit"),
        ("/images/create", "containerd.services.images.v1.ImageCreate"),
        ("/containers/create", "containerd.events.ContainerCreate"),
        ("/containers/delete", "containerd.events.ContainerDelete"),
        ("/images/delete", "containerd.services.images.v1.ImageDelete"),
        ("/content/delete", "containerd.events.ContentDelete"),
        ("/snapshot/remove", "containerd.events.SnapshotRemove"),
    ] {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!((event.topic.as_str(), event.event.type_url.as_str()), (topic, name));
        assert_eq!(event.namespace, space.namespace);
    }
}

#[tokio::test]
async fn only_what_may_leave_garbage_wakes_the_collector() {
    let node = Node::with(SharingPolicy::Shared).await;
    let scope = scope("a");
    let stores = &node.stores;
    let deletions = || stores.activity.borrow().deletions;
    let mut record = container("c", "");
    record.labels.insert("app".to_owned(), "x".to_owned());
    record.labels.insert("containerd.io/gc.ref.content".to_owned(), "sha256:0".to_owned());
    let mut record = stores.containers.create(&scope, record).await.unwrap();
    let before = deletions();
    record.labels.insert("app".to_owned(), "y".to_owned());
    record.labels.insert("containerd.io/gc.ref.content.more".to_owned(), "sha256:1".to_owned());
    stores.containers.update(&scope, record.clone(), &[]).await.unwrap();
    assert_eq!(deletions(), before, "labels of no concern, and more that is kept");
    record.labels.remove("containerd.io/gc.ref.content");
    stores.containers.update(&scope, record.clone(), &["labels".to_owned()]).await.unwrap();
    assert_eq!(deletions(), before + 1, "a reference that is gone");
    record.snapshotter = "other".to_owned();
    record.snapshot_key = "s".to_owned();
    let paths = ["snapshotter".to_owned(), "snapshotkey".to_owned()];
    stores.containers.update(&scope, record, &paths).await.unwrap();
    assert_eq!(deletions(), before + 2, "another snapshot");
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_leave_alone_what_comes_meanwhile() {
    let node = std::sync::Arc::new(Node::new().await);
    let space = scope("k8s.io");
    let collector = tokio::spawn({
        let node = node.clone();
        async move {
            loop {
                node.collect().await;
            }
        }
    });
    let pulls = (0..8).map(|worker| {
        let (node, space) = (node.clone(), space.clone());
        async move {
            for round in 0..6 {
                let id = format!("{worker}-{round}");
                node.stores.leases.create(&space, &id, Labels::new()).await.unwrap();
                let lease = space.with_lease(&id);
                // Everybody writes the same blob, which is garbage now and then.
                let reference = format!("shared-{id}");
                let put = node.stores.content.put(&lease, &reference, "shared".into(), Labels::new());
                let shared = put.await.unwrap();
                node.stores.content.open(&space, &shared).await.unwrap();
                let own = node.put(&lease, &id, &[("containerd.io/gc.ref.content.0", shared.as_str())]).await;
                node.layer(&lease, &format!("layer-{id}"), "", &[]).await;
                node.image(&space, &id, &own).await;
                node.stores.leases.delete(&space, &id, false).await.unwrap();
                assert_eq!(node.stores.content.read(&space, &own, 100).await.unwrap(), id.as_bytes());
                assert_eq!(node.stores.content.read(&space, &shared, 100).await.unwrap(), "shared");
                node.stores.images.delete(&space, &id, Delete::default()).await.unwrap();
            }
        }
    });
    future::join_all(pulls.map(tokio::spawn)).await.into_iter().for_each(|pull| pull.unwrap());
    collector.abort();
    let _ = collector.await;
    node.collect().await;
    assert_eq!(node.below().await, (0, 0));
}

/// A snapshotter that has the layer `remote` from elsewhere, as lazy-pulling ones do.
struct Remote(Snapshotter);

#[async_trait::async_trait]
impl snapshot::Backend for Remote {
    async fn stat(&self, scope: &Scope, key: &str) -> Result<snapshot::Info> {
        self.0.stat(scope, key).await
    }
    async fn update(&self, scope: &Scope, info: snapshot::Info, paths: &[String]) -> Result<snapshot::Info> {
        self.0.update(scope, info, paths).await
    }
    async fn usage(&self, scope: &Scope, key: &str) -> Result<snapshot::Usage> {
        self.0.usage(scope, key).await
    }
    async fn mounts(&self, scope: &Scope, key: &str) -> Result<Vec<Mount>> {
        self.0.mounts(scope, key).await
    }
    async fn prepare(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        let target = labels.get("containerd.io/snapshot.ref").filter(|target| *target == "remote").cloned();
        let mounts = self.0.prepare(scope, key, parent, labels.clone()).await?;
        let Some(target) = target else { return Ok(mounts) };
        self.0.commit(scope, &target, key, snapshot::Commit { labels, parent: None }).await?;
        Err(Error::already_exists("it is there already"))
    }
    async fn view(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<Vec<Mount>> {
        self.0.view(scope, key, parent, labels).await
    }
    async fn commit(&self, scope: &Scope, name: &str, key: &str, commit: snapshot::Commit) -> Result<()> {
        self.0.commit(scope, name, key, commit).await
    }
    async fn remove(&self, scope: &Scope, key: &str) -> Result<()> {
        self.0.remove(scope, key).await
    }
    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<snapshot::Info>> {
        self.0.list(scope, filters).await
    }
    async fn cleanup(&self, _: &Scope) -> Result<()> {
        Err(Error::unimplemented("cleanup is not offered"))
    }
}

#[tokio::test]
async fn layers_that_a_snapshotter_has_from_elsewhere_are_adopted() {
    let node = Node::new().await;
    let space = scope("k8s.io");
    let remote = Snapshotter::new(Target::local("remote"), Remote(node.snapshots.clone()));
    let database = Database::on("remote", Disk::new(), &SCHEMA).unwrap();
    let (content, events) = (node.content.clone(), node.events.clone());
    let snapshotters = [(SNAPSHOTTER.to_owned(), remote)].into();
    let mounts = kevel_mount::Manager::new("/nowhere", []);
    let stores = kevel_metadata::open(database, content, snapshotters, mounts, events, SharingPolicy::Shared).unwrap();
    let snapshots = &stores.snapshotters[SNAPSHOTTER];
    stores.leases.create(&space, "pull", Labels::new()).await.unwrap();
    let labels = label(&[("containerd.io/snapshot.ref", "remote"), ("other", "1")]);
    for _ in 0..2 {
        let prepared = snapshots.prepare(&space.with_lease("pull"), "unpack", "", labels.clone()).await;
        assert_eq!(prepared.unwrap_err().code(), Code::AlreadyExists);
    }
    let info = snapshots.stat(&space, "remote").await.unwrap();
    assert_eq!((info.kind, info.parent.as_str()), (snapshot::Kind::Committed, ""));
    snapshots.prepare(&space.with_lease("pull"), "top", "remote", Labels::new()).await.unwrap();
    assert_eq!(stores.garbage.collect().await.unwrap().snapshots, 0);
    assert_eq!(node.below().await.1, 2);
    stores.leases.delete(&space, "pull", true).await.unwrap();
    assert_eq!(node.below().await.1, 0);
}

/// A tmpfs and a bind that is left to the caller, with labels.
fn activate(labels: &[(&str, &str)]) -> Activate {
    let mount = |kind: &str, source: &str| Mount { kind: kind.into(), source: source.into(), ..Mount::default() };
    let mounts = vec![mount("tmpfs", "tmpfs"), mount("format/bind", "{{ mount 0 }}")];
    Activate { mounts, labels: label(labels), temporary: false }
}

#[tokio::test]
async fn mounts_live_as_long_as_something_keeps_them() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let node = Node::new().await;
    let (space, mounts) = (scope("k8s.io"), &node.stores.mounts);
    node.stores.containers.create(&space, container("c", "")).await.unwrap();
    node.stores.leases.create(&space, "l", Labels::new()).await.unwrap();
    let back = [("containerd.io/gc.bref.container", "c")];
    let of = mounts.activate(&space, "of-container", activate(&back)).await.unwrap();
    let leased = mounts.activate(&space.with_lease("l"), "leased", activate(&[])).await.unwrap();
    let loose = mounts.activate(&space, "loose", activate(&[])).await.unwrap();
    let missing = mounts.activate(&space.with_lease("none"), "x", activate(&[])).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let point = |made: &Activation| Path::new(&made.active[0].mount_point).to_owned();
    let mounted = |made: &Activation| kevel_mount::is_mount_point(&point(made)).unwrap();
    assert!(mounted(&of) && mounted(&leased) && mounted(&loose));

    assert_eq!(node.collect().await.mounts, 1);
    assert!(mounted(&of) && mounted(&leased) && !point(&loose).exists());
    node.stores.containers.delete(&space, "c").await.unwrap();
    assert_eq!(node.collect().await.mounts, 1);
    assert!(!point(&of).exists());
    assert_eq!(node.stores.namespaces.delete(&space.namespace).await.unwrap_err().code(), Code::FailedPrecondition);
    node.stores.leases.delete(&space, "l", true).await.unwrap();
    assert!(!point(&leased).exists());
    assert_eq!(mounts.list(&space, &Filters::default()).await.unwrap(), []);
    node.stores.namespaces.delete(&space.namespace).await.unwrap();
}

#[tokio::test]
async fn mounts_without_a_record_and_records_without_mounts_go() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return;
    }
    let node = Node::new().await;
    let (space, mounts) = (scope("k8s.io"), &node.stores.mounts);
    let root = [("containerd.io/gc.root", "")];
    let lost = mounts.activate(&space, "lost", activate(&root)).await.unwrap();
    let kept = mounts.activate(&space, "kept", activate(&root)).await.unwrap();
    let lost = Path::new(&lost.active[0].mount_point).parent().unwrap().to_owned();
    kevel_mount::unmount_recursive(&lost, kevel_mount::UnmountFlags::empty()).unwrap();
    std::fs::remove_dir_all(&lost).unwrap();
    // What a daemon that was killed leaves.
    let orphan = lost.with_file_name("5").join("000");
    std::fs::create_dir_all(&orphan).unwrap();
    let tmpfs = Mount { kind: "tmpfs".into(), source: "tmpfs".into(), ..Mount::default() };
    kevel_mount::mount(&tmpfs, &orphan).unwrap();

    assert_eq!(node.collect().await.mounts, 0, "none was garbage");
    assert!(!orphan.parent().unwrap().exists());
    let left = mounts.list(&space, &Filters::default()).await.unwrap();
    assert_eq!(left, std::slice::from_ref(&kept));
    assert!(kevel_mount::is_mount_point(Path::new(&kept.active[0].mount_point)).unwrap());
    mounts.activate(&space, "lost", activate(&root)).await.unwrap();
    for name in ["lost", "kept"] {
        mounts.deactivate(&space, name).await.unwrap();
    }
}

/// Numbers as good as random from a seed.
fn survivor(seed: u64) -> impl FnMut(usize) -> bool {
    let mut state = seed | 1;
    move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state & 4 == 0
    }
}

#[tokio::test]
async fn what_is_acknowledged_survives_power_loss_and_nothing_leaks() {
    let space = scope("k8s.io");
    for fail_after in (0..150).step_by(7) {
        let node = Node::new().await;
        node.disk.fail_after(fail_after);
        let mut done = Vec::new();
        for round in 0..4 {
            let image = format!("image-{round}");
            let work = async {
                let lease = format!("lease-{round}");
                node.stores.leases.create(&space, &lease, Labels::new()).await?;
                let leased = space.with_lease(&lease);
                let put = node.stores.content.put(&leased, &image, image.clone().into(), Labels::new());
                let digest = put.await?;
                node.snapshotter().prepare(&leased, &format!("key-{round}"), "", Labels::new()).await?;
                let commit = Default::default();
                node.snapshotter().commit(&leased, &format!("layer-{round}"), &format!("key-{round}"), commit).await?;
                let target = kevel_model::Descriptor::new("m", digest, 1);
                let labels = label(&[("containerd.io/gc.ref.snapshot.native", &format!("layer-{round}"))]);
                let made = kevel_contract::image::Image::new(image.clone(), target, labels);
                node.stores.images.create(&space, made).await?;
                node.stores.leases.delete(&space, &lease, false).await
            };
            if work.await.is_err() {
                break;
            }
            done.push(round);
        }
        let node = node.after_power_loss(survivor(fail_after * 77 + 5)).await;
        for lease in node.stores.leases.list(&space, &Filters::default()).await.unwrap() {
            node.stores.leases.delete(&space, &lease.id, false).await.unwrap();
        }
        node.collect().await;
        for round in &done {
            let image = node.stores.images.get(&space, &format!("image-{round}")).await.unwrap();
            let data = node.stores.content.read(&space, &image.target.digest, 100).await.unwrap();
            assert_eq!(data, format!("image-{round}"));
            node.snapshotter().usage(&space, &format!("layer-{round}")).await.unwrap();
        }
        let images = node.stores.images.list(&space, &Filters::default()).await.unwrap().len();
        assert!(images == done.len() || images == done.len() + 1, "the unacknowledged one may be there, whole");
        assert_eq!(node.below().await, (images, images), "after {fail_after} writes");
    }
}
