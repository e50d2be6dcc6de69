//! What a start finds after crashes, and what is left on disk.

use std::{fs, path::Path, time::Duration};

use kevel_contract::{
    Scope,
    snapshot::{Backend as _, Commit, Kind},
};
use kevel_model::{Code, Filters, Labels, Namespace};

use crate::{
    Snapshots,
    native::Native,
    overlay::{Options, Overlay, UPPERDIR_LABEL},
};

fn scope() -> Scope {
    Scope::new(Namespace::new("test").unwrap())
}

async fn open(root: &Path, boot: &str) -> Snapshots<Overlay> {
    let options = Options { upperdir_label: true, ..Options::default() };
    Snapshots::open_in_boot(root, Overlay::new(options), true, boot.to_owned()).await.unwrap()
}

/// Opens again once the store before, which was dropped, let go of its database.
async fn reopen(root: &Path, boot: &str) -> Snapshots<Overlay> {
    let opened = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let driver = Overlay::new(Options::default());
            match Snapshots::open_in_boot(root, driver, true, boot.to_owned()).await {
                Err(error) if error.code() == Code::Unavailable => tokio::task::yield_now().await,
                other => return other.unwrap(),
            }
        }
    });
    opened.await.expect("the database is closed with its last user")
}

async fn layer(snapshots: &Snapshots<Overlay>, name: &str, parent: &str) {
    let key = format!("{name}-key");
    snapshots.prepare(&scope(), &key, parent, Labels::new()).await.unwrap();
    snapshots.commit(&scope(), name, &key, Commit::default()).await.unwrap();
}

async fn names(snapshots: &Snapshots<Overlay>) -> Vec<String> {
    let listed = snapshots.list(&scope(), &Filters::default()).await.unwrap();
    listed.into_iter().map(|info| info.name).collect()
}

fn directories(root: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root.join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_layout_is_containerds() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path(), "now").await;
    layer(&snapshots, "one", "").await;
    snapshots.prepare(&scope(), "active", "one", Labels::new()).await.unwrap();
    snapshots.view(&scope(), "view", "one", Labels::new()).await.unwrap();
    assert_eq!(directories(dir.path()), ["1", "2", "3"]);
    let has = |path: &str| dir.path().join("snapshots").join(path).is_dir();
    assert_eq!((has("2/fs"), has("2/work"), has("3/fs"), has("3/work")), (true, true, true, false));
    let label = snapshots.stat(&scope(), "active").await.unwrap().labels.remove(UPPERDIR_LABEL);
    assert_eq!(label, Some(dir.path().join("snapshots/2/fs").display().to_string()));
    // What a client saw and sends back is not stored.
    let info = snapshots.stat(&scope(), "active").await.unwrap();
    snapshots.update(&scope(), info, &[]).await.unwrap();
    drop(snapshots);
    let snapshots = reopen(dir.path(), "now").await;
    assert!(snapshots.stat(&scope(), "active").await.unwrap().labels.is_empty());
}

#[tokio::test]
async fn leftovers_of_a_crash_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path(), "now").await;
    layer(&snapshots, "one", "").await;
    drop(snapshots);
    for leftover in ["7/fs/deep/er", "rm-5/fs", "new-123/fs"] {
        fs::create_dir_all(dir.path().join("snapshots").join(leftover)).unwrap();
    }
    let snapshots = reopen(dir.path(), "now").await;
    layer(&snapshots, "two", "one").await;
    snapshots.cleanup(&scope()).await.unwrap();
    assert_eq!(directories(dir.path()), ["1", "8"], "the number of a leftover is not used again");
    snapshots.remove(&scope(), "two").await.unwrap();
    assert_eq!(directories(dir.path()), ["1"]);
    drop(snapshots);
    let snapshots = reopen(dir.path(), "now").await;
    layer(&snapshots, "two", "one").await;
    assert_eq!(directories(dir.path()), ["1", "9"], "nor that of a removed snapshot");
}

#[tokio::test]
async fn layers_that_never_reached_the_disk_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path(), "before").await;
    layer(&snapshots, "one", "").await;
    snapshots.close().await.unwrap(); // synced
    layer(&snapshots, "two", "one").await;
    layer(&snapshots, "three", "two").await;
    snapshots.prepare(&scope(), "active", "three", Labels::new()).await.unwrap();
    drop(snapshots);

    // A new process in the same boot: the kernel still has everything.
    let snapshots = reopen(dir.path(), "before").await;
    assert_eq!(names(&snapshots).await, ["active", "one", "three", "two"]);
    drop(snapshots);

    let snapshots = reopen(dir.path(), "after").await;
    assert_eq!(names(&snapshots).await, ["one"]);
    snapshots.cleanup(&scope()).await.unwrap();
    assert_eq!(directories(dir.path()), ["1"]);
    layer(&snapshots, "two", "one").await;
    snapshots.remove(&scope(), "two").await.unwrap();
    snapshots.remove(&scope(), "one").await.unwrap();
}

#[tokio::test]
async fn snapshots_without_a_directory_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path(), "now").await;
    layer(&snapshots, "one", "").await;
    layer(&snapshots, "two", "one").await;
    drop(snapshots);
    fs::remove_dir_all(dir.path().join("snapshots/2")).unwrap();
    let snapshots = reopen(dir.path(), "now").await;
    assert_eq!(names(&snapshots).await, ["one"]);
    snapshots.remove(&scope(), "one").await.unwrap();
}

#[tokio::test]
async fn another_runtimes_snapshots_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("snapshots/1/fs")).unwrap();
    let Err(error) = Snapshots::open_in_boot(dir.path(), Native, false, "now".into()).await else {
        panic!("opened");
    };
    assert_eq!(error.code(), Code::FailedPrecondition, "{}", error.chain());
    assert_eq!(directories(dir.path()), ["1"]);
}

#[tokio::test]
async fn a_failed_snapshot_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path(), "now").await;
    let labels = Labels::from([("containerd.io/snapshot/uidmapping".to_owned(), "nonsense".to_owned())]);
    let error = snapshots.prepare(&scope(), "key", "", labels).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{}", error.chain());
    assert_eq!(directories(dir.path()), Vec::<String>::new());
    for bad in [String::new(), "x".repeat(5000)] {
        let error = snapshots.prepare(&scope(), &bad, "", Labels::new()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn mapped_roots_belong_to_the_containers_root() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: changing owners needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path(), "now").await;
    let label = |name: &str, value: &str| (format!("containerd.io/snapshot/{name}"), value.to_owned());
    let labels = Labels::from([label("uidmapping", "0:70000:65536"), label("gidmapping", "0:80000:65536")]);
    snapshots.prepare(&scope(), "key", "", labels).await.unwrap();
    let metadata = fs::metadata(dir.path().join("snapshots/1/fs")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (70_000, 80_000));
    assert_eq!(snapshots.stat(&scope(), "key").await.unwrap().kind, Kind::Active);
}
