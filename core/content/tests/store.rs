//! The local store against the conformance suite, and what only a store in files promises.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use bytes::Bytes;
use kevel_content::LocalStore;
use kevel_contract::{
    Scope,
    call::Target,
    content::{Begin, Commit, ContentStore, suite},
};
use kevel_model::{Code, Digest, Filters, Hasher, Labels, Namespace};

async fn open(root: &Path) -> ContentStore {
    ContentStore::new(Target::local("local"), LocalStore::open(root).await.unwrap())
}

fn scope() -> Scope {
    Scope::new(Namespace::new("test").unwrap())
}

fn begin(reference: &str) -> Begin {
    Begin { reference: reference.into(), ..Begin::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    suite::run(|| async {
        let dir = tempfile::tempdir().unwrap();
        (open(dir.path()).await, dir)
    })
    .await;
}

#[tokio::test]
async fn files_are_where_containerd_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut ingest = store.begin(&scope(), Begin { total: 11, ..begin("layer-x") }).await.unwrap();
    ingest.write(Bytes::from_static(b"hello")).await.unwrap();
    ingest.digest().await.unwrap();
    let place = dir.path().join("ingest").join(Digest::sha256(b"layer-x").encoded());
    let text = |name: &str| std::fs::read_to_string(place.join(name)).unwrap();
    assert_eq!((text("ref"), text("total"), text("data")), ("layer-x".into(), "11".into(), "hello".into()));
    assert!(text("startedat").ends_with('Z') && text("updatedat").contains('T'));
    ingest.write(Bytes::from_static(b" world")).await.unwrap();
    let digest = ingest.commit(Commit::default()).await.unwrap();
    assert!(!place.exists());
    let blob = dir.path().join("blobs/sha256").join(digest.encoded());
    assert_eq!(std::fs::read(&blob).unwrap(), b"hello world");
    assert_eq!(blob.metadata().unwrap().permissions().mode() & 0o777, 0o444);
}

#[tokio::test]
async fn a_total_is_verified_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut ingest = store.begin(&scope(), Begin { total: 6, ..begin("short") }).await.unwrap();
    ingest.write(Bytes::from_static(b"short")).await.unwrap();
    let error = ingest.commit(Commit::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.chain().contains("has 5 bytes, expected 6"), "{}", error.chain());
    ingest.write(Bytes::from_static(b"!")).await.unwrap();
    ingest.commit(Commit::default()).await.unwrap();
}

#[tokio::test]
async fn other_algorithms_are_verified_and_cut_ingests_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let want: Digest = {
        let sample: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
        let mut hasher: Hasher = sample.hasher();
        hasher.update(b"hello");
        hasher.finish()
    };
    let mut ingest = store.begin(&scope(), begin("algorithm")).await.unwrap();
    ingest.write(Bytes::from_static(b"hello, you")).await.unwrap();
    ingest.truncate(5).await.unwrap();
    assert_eq!(ingest.digest().await.unwrap(), Digest::sha256(b"hello"));
    assert_eq!(ingest.truncate(6).await.unwrap_err().code(), Code::OutOfRange);
    let digest = ingest.commit(Commit { expected: Some(want.clone()), ..Commit::default() }).await.unwrap();
    assert_eq!(digest, want);
    assert_eq!(store.info(&scope(), &want).await.unwrap().size, 5);
}

#[tokio::test]
async fn ingests_survive_a_new_process_and_broken_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path()).await;
        let mut ingest = store.begin(&scope(), begin("kept")).await.unwrap();
        ingest.write(Bytes::from_static(b"abc")).await.unwrap();
        ingest.digest().await.unwrap(); // flushed; a killed process loses what only it had
        std::mem::forget(ingest);
    }
    let broken = dir.path().join("ingest").join("0".repeat(64));
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("ref"), b"no data").unwrap();
    std::fs::write(dir.path().join("blobs/sha256/stray"), b"x").unwrap();

    let store = open(dir.path()).await;
    assert!(!broken.exists());
    let statuses = store.statuses(&scope(), &Filters::default()).await.unwrap();
    assert_eq!(
        statuses.iter().map(|status| (status.reference.as_str(), status.offset)).collect::<Vec<_>>(),
        [("kept", 3)]
    );
    assert!(store.list(&scope(), &Filters::default()).await.unwrap().is_empty());
    let mut ingest = store.begin(&scope(), begin("kept")).await.unwrap();
    ingest.write(Bytes::from_static(b"def")).await.unwrap();
    assert_eq!(ingest.commit(Commit::default()).await.unwrap(), Digest::sha256(b"abcdef"));
}

#[tokio::test]
async fn an_abort_under_a_writer_fails_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut ingest = store.begin(&scope(), begin("pulled")).await.unwrap();
    ingest.write(Bytes::from_static(b"abc")).await.unwrap();
    store.abort(&scope(), "pulled").await.unwrap();
    assert_eq!(ingest.commit(Commit::default()).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn labels_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digest = store.put(&scope(), "x", Bytes::from_static(b"x"), Labels::new()).await.unwrap();
    let info = store.info(&scope(), &digest).await.unwrap();
    let error = store.update(&scope(), info, &[]).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.to_string().contains("metadata"), "{error}");
}
