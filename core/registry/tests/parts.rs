//! Large blobs in parts, from registries that like ranges and from those that don't.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod fake;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use fake::{Asked, Body, Fake, asked_range, body, broken, part, stalled, status};
use http::Response;
use kevel_model::{Code, Descriptor, media_type::OCI_LAYER};
use kevel_registry::{Budget, Credentials, Error, Options, Parts, Registry, Session, Settings};

const PARTS: Parts = Parts { size: 10_000, connections: 4 };

fn settings() -> Settings {
    Settings {
        config_paths: Vec::new(),
        stall_timeout: Duration::from_millis(300),
        retries: 2,
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(20),
        ..Settings::default()
    }
}

async fn session(fake: &Fake) -> Session {
    Registry::new(settings()).session(&fake.reference("team/app:v1"), Options::default()).await.unwrap()
}

fn data() -> Bytes {
    Bytes::from((0..50_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
}

async fn read(session: &Session, blob: &Descriptor, offset: u64, budget: &Budget) -> Result<Vec<u8>, Error> {
    let mut fetch = session.fetch(blob, offset, PARTS, budget).await?;
    let mut all = Vec::new();
    while let Some((piece, _room)) = fetch.next().await? {
        all.extend_from_slice(&piece);
        assert_eq!(fetch.offset(), offset + all.len() as u64);
    }
    assert!(fetch.next().await?.is_none(), "an end stays one");
    Ok(all)
}

/// Reads a blob of [`data`] from a registry with a fault; answers the requests for it.
async fn check(
    offset: u64,
    budget: &Budget,
    fault: impl Fn(&Asked, usize) -> Option<Response<Body>> + Send + Sync + 'static,
) -> Vec<Asked> {
    let fake = Fake::with(fault).await;
    let blob = fake.blob(OCI_LAYER, data());
    let got = read(&session(&fake).await, &blob, offset, budget).await.unwrap();
    assert!(got == data().slice(usize::try_from(offset).unwrap()..), "the bytes are others");
    fake.asked("/blobs/")
}

fn plenty() -> Budget {
    Budget::new(100, 64 << 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_come_in_parts() {
    let asked = check(0, &plenty(), |_, _| None).await;
    let ranges: HashSet<_> = asked.iter().map(|asked| asked.header("range").unwrap().to_owned()).collect();
    assert_eq!((asked.len(), ranges.len()), (20, 20), "each part once");
    assert!(ranges.contains("bytes=0-9999") && ranges.contains("bytes=190000-"));
    let asked = check(123_456, &plenty(), |_, _| None).await;
    assert_eq!(asked.len(), 8);
    assert_eq!(asked[0].header("range"), Some("bytes=123456-133455"));
}

#[tokio::test]
async fn small_ones_and_rests_come_whole() {
    assert_eq!(check(185_000, &plenty(), |_, _| None).await.len(), 1);
    let fake = Fake::start().await;
    let blob = fake.blob(OCI_LAYER, vec![7; 19_999]);
    assert_eq!(read(&session(&fake).await, &blob, 0, &plenty()).await.unwrap().len(), 19_999);
    assert_eq!(fake.asked("/blobs/")[0].header("range"), None);
    let nothing = fake.blob(OCI_LAYER, "");
    assert!(read(&session(&fake).await, &nothing, 0, &plenty()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_ignores_ranges_is_read_once() {
    let asked = check(0, &plenty(), |asked, _| asked.header("range").map(|_| Response::new(body(data())))).await;
    assert_eq!(asked.len(), 1, "the first answer is taken as it is");
    // From the middle on, what was read before is skipped.
    assert_eq!(check(40_000, &plenty(), |_, _| Some(Response::new(body(data())))).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_wrong_about_ranges_is_asked_without() {
    let refuse = |asked: &Asked, _| asked.header("range").map(|_| status(416, ""));
    let asked = check(0, &plenty(), refuse).await;
    assert_eq!(asked.len(), 2);
    let shifted = |asked: &Asked, _| asked.header("range").map(|_| part(&data(), 1, 10_000));
    check(0, &plenty(), shifted).await;
    // Answers the wrong thing in the midst of it, and knows no ranges from then on.
    let later = |asked: &Asked, _: usize| {
        let (from, to) = asked_range(asked.header("range")?, data().len())?;
        match from {
            50_000 if to == 60_000 => Some(part(&data(), 50_000, 59_000)),
            60_000.. if to < 200_000 => Some(Response::new(body(data()))),
            _ => None,
        }
    };
    check(0, &plenty(), later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_taken_up_where_they_broke() {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    // Every part breaks, stalls, or finds the registry busy once.
    let asked = check(0, &plenty(), move |asked, _| {
        let range = asked.header("range")?.to_owned();
        let (from, to) = asked_range(&range, data().len())?;
        if !seen.lock().unwrap().insert(to) {
            return None;
        }
        let half = data().slice(from..from + 4_000);
        let announce = |mut response: Response<Body>| {
            let content_range = format!("bytes {from}-{}/{}", to - 1, data().len());
            response.headers_mut().insert("content-range", content_range.parse().unwrap());
            *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            response
        };
        Some(match from / 10_000 % 4 {
            0 => announce(broken(half, (to - from) as u64)),
            1 => announce(stalled(half, (to - from) as u64)),
            2 => Response::builder().status(429).header("retry-after", "0").body(body("")).unwrap(),
            _ => status(503, "busy"),
        })
    })
    .await;
    assert_eq!(asked.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_runs_out_between_parts_is_replaced() {
    let fake = Fake::with(|asked, count| {
        if asked.path.starts_with("/token") {
            return Some(Response::new(body(format!(r#"{{"token":"t{count}"}}"#))));
        }
        // Each token is good for the parts of one half.
        let half = asked_range(asked.header("range")?, 200_000)?.0 / 100_000;
        let good = asked.header("authorization") == Some(&format!("Bearer t{half}"));
        let challenge = format!(r#"Bearer realm="http://{}/token""#, asked.header("host")?);
        (!good).then(|| Response::builder().status(401).header("www-authenticate", challenge).body(body("")).unwrap())
    })
    .await;
    let blob = fake.blob(OCI_LAYER, data());
    let credentials = Some(Credentials { username: "u".into(), secret: "p".into(), ..Credentials::default() });
    let options = Options { credentials, ..Options::default() };
    let session = Registry::new(settings()).session(&fake.reference("team/app:v1"), options).await.unwrap();
    // One connection at a time, so that no part of the first half is asked for with the second token.
    let got = read(&session, &blob, 0, &Budget::new(1, 64 << 20)).await.unwrap();
    assert!(got == data());
    assert_eq!(fake.asked("/token").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_smaller_than_a_part_is_enough_for_many_blobs() {
    let fake = Fake::start().await;
    let blobs: Vec<_> = (0..4u8).map(|n| fake.blob(OCI_LAYER, vec![n; 100_000])).collect();
    for budget in [Budget::new(1, 1000), Budget::new(3, 25_000), Budget::new(100, 10_000)] {
        let session = session(&fake).await;
        let reads = blobs.iter().map(|blob| read(&session, blob, 0, &budget));
        let all = tokio::time::timeout(Duration::from_secs(30), futures::future::try_join_all(reads));
        assert!(all.await.expect("no deadlock").unwrap().iter().all(|got| got.len() == 100_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_given_back_with_the_pieces() {
    let fake = Fake::start().await;
    let blob = fake.blob(OCI_LAYER, data());
    let budget = Budget::new(10, 20_000);
    let session = session(&fake).await;
    let mut fetch = session.fetch(&blob, 0, PARTS, &budget).await.unwrap();
    let mut held = Vec::new();
    let mut got = 0;
    // What nobody gives back is not fetched over: two parts fit, the third has to wait.
    while let Ok(next) = tokio::time::timeout(Duration::from_secs(3), fetch.next()).await {
        let (piece, room) = next.unwrap().unwrap();
        got += piece.len();
        held.push(room);
    }
    assert_eq!(got, 20_000);
    held.clear();
    while let Some((piece, _)) = fetch.next().await.unwrap() {
        got += piece.len();
    }
    assert_eq!(got, data().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_too_long_is_an_error() {
    let fake = Fake::start().await;
    let missing = Descriptor::new(OCI_LAYER, kevel_model::Digest::sha256(b"gone"), 100_000);
    let error = read(&session(&fake).await, &missing, 0, &plenty()).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    let mut blob = fake.blob(OCI_LAYER, data());
    blob.size -= 100;
    let error = read(&session(&fake).await, &blob, 0, &plenty()).await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss, "{error}");
}
