//! The conformance suite of content stores: what every store promises, whoever wrote it and wherever it runs.
//!
//! Run [`run`] with a factory of empty stores; [`run_labels`] too where the store keeps labels. A check fails by
//! panicking with its name.

#![expect(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::{collections::BTreeSet, future::Future, time::Duration};

use bytes::Bytes;
use kevel_model::{Code, Digest, Filters, Labels, Namespace, Result};

use super::{Begin, Commit, ContentStore, Ingest};
use crate::Scope;

/// How long a writer that was dropped may take to give its lock back; over a socket that is not at once.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Runs every check, each on a store of its own. The factory answers a store and whatever must outlive it.
pub async fn run<F: Future<Output = (ContentStore, G)>, G>(factory: impl Fn() -> F) {
    macro_rules! checks {
        ($($check:ident),* $(,)?) => { $({
            let (store, guard) = factory().await;
            eprintln!("content suite: {} on {}", stringify!($check), store.target().name);
            $check(&store).await;
            drop((store, guard));
        })* };
    }
    checks!(
        blobs_read_back,
        parts_read_back,
        lists_are_sorted_and_filtered,
        ingests_resume,
        one_writer_at_a_time,
        commits_verify,
        aborted_ingests_are_gone,
        what_exists_is_not_written_again,
        ingests_begin_again,
        statuses_are_sorted_and_filtered,
        deleted_blobs_are_gone,
        bad_names_are_refused,
        writers_run_in_parallel,
    );
}

/// Runs the checks of stores that keep labels.
pub async fn run_labels<F: Future<Output = (ContentStore, G)>, G>(factory: impl Fn() -> F) {
    let (store, guard) = factory().await;
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let digest = store.put(&scope(), "labelled", data(10, 1), Labels::from([label("a", "1")])).await.unwrap();
    assert_eq!(store.info(&scope(), &digest).await.unwrap().labels, Labels::from([label("a", "1")]));
    store.put(&scope(), "again", data(10, 1), Labels::from([label("b.c", "2")])).await.unwrap();
    let mut info = store.info(&scope(), &digest).await.unwrap();
    assert_eq!(info.labels, Labels::from([label("a", "1"), label("b.c", "2")]));
    info.labels = Labels::from([label("a", "9")]);
    let info = store.update(&scope(), info, &["labels.a".into(), "labels.b.c".into()]).await.unwrap();
    assert_eq!(info.labels, Labels::from([label("a", "9")]));
    for (filter, want) in [("labels.a==9", 1), ("labels.\"b.c\"", 0)] {
        assert_eq!(store.list(&scope(), &Filters::parse(&[filter]).unwrap()).await.unwrap().len(), want, "{filter}");
    }
    drop((store, guard));
}

fn scope() -> Scope {
    Scope::new(Namespace::new("suite").unwrap())
}

/// `size` bytes that differ by `seed` and don't repeat every power of two.
fn data(size: usize, seed: u8) -> Bytes {
    (0..size).map(|n| (n % 251) as u8 ^ seed).collect()
}

fn begin(reference: &str) -> Begin {
    Begin { reference: reference.to_owned(), ..Begin::default() }
}

fn code<T>(result: Result<T>) -> Option<Code> {
    result.err().map(|error| error.code())
}

/// Opens an ingest whose last writer was just dropped.
async fn reopen(store: &ContentStore, reference: &str) -> Box<dyn Ingest> {
    let opened = tokio::time::timeout(CLOSE_LIMIT, async {
        loop {
            match store.begin(&scope(), begin(reference)).await {
                Err(error) if error.code() == Code::Unavailable => tokio::task::yield_now().await,
                other => return other.unwrap(),
            }
        }
    });
    opened.await.expect("the lock of a dropped writer is given back")
}

async fn read(store: &ContentStore, digest: &Digest) -> Bytes {
    store.read(&scope(), digest, 64 << 20).await.unwrap()
}

async fn put(store: &ContentStore, reference: &str, data: &Bytes) -> Digest {
    store.put(&scope(), reference, data.clone(), Labels::new()).await.unwrap()
}

async fn blobs_read_back(store: &ContentStore) {
    for size in [0, 1, 4096, (3 << 20) + 7] {
        let data = data(size, 1);
        let digest = put(store, &format!("size-{size}"), &data).await;
        assert_eq!(digest, Digest::sha256(&data));
        let info = store.info(&scope(), &digest).await.unwrap();
        assert_eq!((info.size, &info.digest), (size as u64, &digest));
        assert!(info.created_at <= info.updated_at);
        assert!(read(store, &digest).await == data, "{size} bytes");
    }
    assert!(store.statuses(&scope(), &Filters::default()).await.unwrap().is_empty(), "ingests are left");
}

async fn parts_read_back(store: &ContentStore) {
    let data = data(10_000, 2);
    let blob = store.open(&scope(), &put(store, "parts", &data).await).await.unwrap();
    assert_eq!(blob.size(), 10_000);
    for (offset, length, want) in [
        (0, 10, 0..10),
        (4095, 2, 4095..4097),
        (9_990, 100, 9_990..10_000),
        (10_000, 1, 0..0),
        (u64::MAX, 1, 0..0),
        (5, 0, 0..0),
    ] {
        assert_eq!(blob.read_at(offset, length).await.unwrap(), data.slice(want), "{length} bytes at {offset}");
    }
}

async fn lists_are_sorted_and_filtered(store: &ContentStore) {
    let mut digests = vec![];
    for seed in 0..5 {
        digests.push(put(store, &format!("list-{seed}"), &data(100 + usize::from(seed), seed)).await);
    }
    digests.sort();
    let listed = store.list(&scope(), &Filters::default()).await.unwrap();
    assert_eq!(listed.into_iter().map(|info| info.digest).collect::<Vec<_>>(), digests);
    let filters = Filters::parse(&[format!("digest=={}", digests[3])]).unwrap();
    let listed = store.list(&scope(), &filters).await.unwrap();
    assert_eq!(listed.into_iter().map(|info| info.digest).collect::<Vec<_>>(), digests[3..4]);
}

async fn ingests_resume(store: &ContentStore) {
    let data = data((2 << 20) + 100, 3);
    let cut = (1 << 20) + 50;
    let mut ingest = store.begin(&scope(), begin("resumed")).await.unwrap();
    assert_eq!(ingest.status().offset, 0);
    ingest.write(data.slice(..100)).await.unwrap();
    ingest.write(data.slice(100..cut)).await.unwrap();
    assert_eq!(ingest.status().offset, cut as u64);
    drop(ingest);

    let mut ingest = reopen(store, "resumed").await;
    assert_eq!(ingest.status().offset, cut as u64);
    let status = store.status(&scope(), "resumed").await.unwrap();
    assert_eq!((status.reference.as_str(), status.offset), ("resumed", cut as u64));
    ingest.write(data.slice(cut..)).await.unwrap();
    let commit = Commit { size: data.len() as u64, expected: Some(Digest::sha256(&data)), ..Commit::default() };
    let digest = ingest.commit(commit).await.unwrap();
    assert!(read(store, &digest).await == data);
    assert_eq!(code(store.status(&scope(), "resumed").await), Some(Code::NotFound));
}

async fn one_writer_at_a_time(store: &ContentStore) {
    let mut first = store.begin(&scope(), begin("locked")).await.unwrap();
    first.write(data(10, 4)).await.unwrap();
    assert_eq!(code(store.begin(&scope(), begin("locked")).await), Some(Code::Unavailable));
    store.begin(&scope(), begin("other")).await.unwrap();
    drop(first);
    reopen(store, "locked").await;
}

async fn commits_verify(store: &ContentStore) {
    let data = data(1000, 5);
    let mut ingest = store.begin(&scope(), begin("verified")).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    drop(ingest);
    for wrong in [
        Commit { size: 999, ..Commit::default() },
        Commit { expected: Some(Digest::sha256(b"something else")), ..Commit::default() },
    ] {
        let mut ingest = reopen(store, "verified").await;
        assert_eq!(code(ingest.commit(wrong).await), Some(Code::FailedPrecondition));
    }
    assert_eq!(code(store.info(&scope(), &Digest::sha256(&data)).await), Some(Code::NotFound));
    assert_eq!(store.status(&scope(), "verified").await.unwrap().offset, 1000);
    let mut ingest = reopen(store, "verified").await;
    let digest = ingest.commit(Commit { size: 1000, ..Commit::default() }).await.unwrap();
    assert_eq!(digest, Digest::sha256(&data));
}

async fn aborted_ingests_are_gone(store: &ContentStore) {
    let mut ingest = store.begin(&scope(), begin("aborted")).await.unwrap();
    ingest.write(data(100, 6)).await.unwrap();
    drop(ingest);
    drop(reopen(store, "aborted").await);
    store.abort(&scope(), "aborted").await.unwrap();
    assert_eq!(code(store.status(&scope(), "aborted").await), Some(Code::NotFound));
    assert_eq!(code(store.abort(&scope(), "aborted").await), Some(Code::NotFound));
    assert_eq!(reopen(store, "aborted").await.status().offset, 0);
}

async fn what_exists_is_not_written_again(store: &ContentStore) {
    let data = data(100, 7);
    let digest = put(store, "first", &data).await;
    let expected = Begin { expected: Some(digest.clone()), ..begin("second") };
    assert_eq!(code(store.begin(&scope(), expected).await), Some(Code::AlreadyExists));
    let mut ingest = store.begin(&scope(), begin("third")).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    assert_eq!(code(ingest.commit(Commit::default()).await), Some(Code::AlreadyExists));
    assert_eq!(put(store, "fourth", &data).await, digest);
}

async fn ingests_begin_again(store: &ContentStore) {
    let mut ingest = store.begin(&scope(), begin("again")).await.unwrap();
    ingest.write(data(2000, 8)).await.unwrap();
    ingest.truncate(0).await.unwrap();
    assert_eq!(ingest.status().offset, 0);
    let data = data(500, 9);
    ingest.write(data.clone()).await.unwrap();
    let digest = ingest.commit(Commit { size: 500, ..Commit::default() }).await.unwrap();
    assert_eq!(digest, Digest::sha256(&data));
    assert_eq!(read(store, &digest).await, data);
}

async fn statuses_are_sorted_and_filtered(store: &ContentStore) {
    for name in ["c", "a", "b"] {
        let total = Begin { total: 77, ..begin(name) };
        let mut ingest = store.begin(&scope(), total).await.unwrap();
        ingest.write(data(5, 1)).await.unwrap();
        drop(ingest);
        drop(reopen(store, name).await);
    }
    let names = async |filters: &[&str]| {
        let statuses = store.statuses(&scope(), &Filters::parse(filters).unwrap()).await.unwrap();
        assert!(statuses.iter().all(|status| status.offset == 5), "{statuses:?}");
        assert!(statuses.iter().all(|status| status.started_at <= status.updated_at), "{statuses:?}");
        statuses.into_iter().map(|status| status.reference).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]).await, ["a", "b", "c"]);
    assert_eq!(names(&["ref==b", "ref==c"]).await, ["b", "c"]);
    assert_eq!(store.status(&scope(), "a").await.unwrap().total, 77);
}

async fn deleted_blobs_are_gone(store: &ContentStore) {
    let data = data(100, 10);
    let digest = put(store, "deleted", &data).await;
    store.delete(&scope(), &digest).await.unwrap();
    assert_eq!(code(store.info(&scope(), &digest).await), Some(Code::NotFound));
    assert_eq!(code(store.open(&scope(), &digest).await), Some(Code::NotFound));
    assert_eq!(code(store.delete(&scope(), &digest).await), Some(Code::NotFound));
    assert!(store.list(&scope(), &Filters::default()).await.unwrap().is_empty());
    assert_eq!(put(store, "deleted", &data).await, digest);
    assert_eq!(read(store, &digest).await, data);
}

async fn bad_names_are_refused(store: &ContentStore) {
    for bad in [String::new(), "x".repeat(1 << 16)] {
        assert_eq!(code(store.begin(&scope(), begin(&bad)).await), Some(Code::InvalidArgument), "{} bytes", bad.len());
    }
    assert_eq!(code(store.status(&scope(), "../../etc").await), Some(Code::NotFound));
    assert_eq!(code(store.abort(&scope(), "../../etc").await), Some(Code::NotFound));
    put(store, "a/../../b c\n\u{e4}", &data(10, 11)).await;
}

async fn writers_run_in_parallel(store: &ContentStore) {
    let writers = (0..8_u8).map(|seed| async move {
        let data = data((1 << 20) + usize::from(seed), seed);
        let reference = format!("parallel-{seed}");
        let mut ingest = store.begin(&scope(), begin(&reference)).await.unwrap();
        for piece in data.chunks(100_000) {
            ingest.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert_eq!(ingest.commit(Commit::default()).await.unwrap(), Digest::sha256(&data));
        Digest::sha256(&data)
    });
    let digests: BTreeSet<_> = futures::future::join_all(writers).await.into_iter().collect();
    let listed = store.list(&scope(), &Filters::default()).await.unwrap();
    assert_eq!(listed.into_iter().map(|info| info.digest).collect::<BTreeSet<_>>(), digests);
}
