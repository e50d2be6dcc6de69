//! The client against a registry that misbehaves on purpose.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod fake;

use std::time::Duration;

use bytes::Bytes;
use fake::{Asked, Body, Fake, body, broken, stalled, status};
use futures::TryStreamExt as _;
use http::Response;
use kevel_model::{Code, Descriptor, Digest, Reference, media_type::*};
use kevel_registry::{Credentials, Error, Options, Registry, Session, Settings};

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn settings() -> Settings {
    Settings {
        config_paths: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        header_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_millis(300),
        retries: 2,
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(20),
        document_limit: 64 << 10,
        ..Settings::default()
    }
}

async fn session_with(reference: &Reference, options: Options) -> Session {
    Registry::new(settings()).session(reference, options).await.unwrap()
}

async fn session(fake: &Fake) -> Session {
    session_with(&fake.reference("team/app:v1"), Options::default()).await
}

async fn read(session: &Session, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let stream = session.blob(descriptor, 0).await?.into_stream();
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    Ok(pieces.concat())
}

fn text(error: &Error) -> String {
    error.to_string()
}

#[tokio::test]
async fn resolves_and_fetches() {
    let fake = Fake::start().await;
    let manifest = fake.manifest("v1", OCI_MANIFEST, MANIFEST);
    let blob = fake.blob(OCI_LAYER, vec![7; 300_000]);
    let session = session(&fake).await;
    assert_eq!(session.resolve().await.unwrap(), manifest);
    assert_eq!(session.document(&manifest).await.unwrap(), MANIFEST);
    assert_eq!(read(&session, &blob).await.unwrap().len(), 300_000);
    assert!(fake.asked("HEAD")[0].header("accept").unwrap().contains(OCI_INDEX));
    assert!(!fake.asked("HEAD")[0].path.contains("ns="));
}

#[tokio::test]
async fn reads_the_manifest_where_head_says_too_little() {
    let fake = Fake::with(|asked, _| (asked.method == "HEAD").then(|| status(405, ""))).await;
    let manifest = fake.manifest("v1", OCI_MANIFEST, MANIFEST);
    let session = session(&fake).await;
    assert_eq!(session.resolve().await.unwrap(), manifest);
    session.document(&manifest).await.unwrap();
    assert_eq!(fake.asked("GET").len(), 1, "what was read once is not read again");
}

#[tokio::test]
async fn a_broken_blob_is_resumed_where_it_broke() {
    let data = Bytes::from((0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    for ranges in [true, false] {
        let whole = data.clone();
        let fake = Fake::with(move |asked, count| {
            let blob = asked.path.contains("/blobs/");
            match count {
                0 if blob => Some(broken(whole.slice(..100_000), whole.len() as u64)),
                _ if blob && !ranges => Some(Response::new(body(whole.clone()))),
                _ => None,
            }
        })
        .await;
        let blob = fake.blob(OCI_LAYER, data.clone());
        assert_eq!(read(&session(&fake).await, &blob).await.unwrap(), data);
        let asked = fake.asked("/blobs/");
        assert_eq!(asked.len(), 2);
        assert!(asked[1].header("range").unwrap().starts_with("bytes="));
    }
}

#[tokio::test]
async fn a_stalled_blob_is_resumed() {
    let data = Bytes::from(vec![9; 50_000]);
    let whole = data.clone();
    let fake = Fake::with(move |asked, count| {
        (asked.path.contains("/blobs/") && count == 0).then(|| stalled(whole.slice(..10_000), 50_000))
    })
    .await;
    let blob = fake.blob(OCI_LAYER, data.clone());
    assert_eq!(read(&session(&fake).await, &blob).await.unwrap(), data);
}

#[tokio::test]
async fn a_blob_can_begin_in_the_middle() {
    let fake = Fake::start().await;
    let blob = fake.blob(OCI_LAYER, "0123456789");
    let session = session(&fake).await;
    let mut stream = session.blob(&blob, 4).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "456789");
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(session.blob(&blob, 10).await.unwrap().next().await.unwrap(), None);
}

#[tokio::test]
async fn busy_registries_are_asked_again() {
    let fake = Fake::with(|_, count| match count {
        0 => Some(status(503, "")),
        1 => Some(Response::builder().status(429).header("retry-after", "0").body(body("")).unwrap()),
        _ => None,
    })
    .await;
    let manifest = fake.manifest("v1", OCI_MANIFEST, MANIFEST);
    assert_eq!(session(&fake).await.resolve().await.unwrap(), manifest);
    assert_eq!(fake.asked("HEAD").len(), 3);
}

/// One thing that a registry does wrong, and what is said about it.
struct Case {
    what: &'static str,
    fault: fn(&Asked, usize) -> Option<Response<Body>>,
    code: Code,
    says: &'static str,
}

/// For answers that don't depend on the request.
macro_rules! always {
    ($response:expr) => {
        |_, _| Some($response)
    };
}

fn head(kind: &str, digest: &str, length: &str) -> Response<Body> {
    Response::builder()
        .header("content-type", kind)
        .header("docker-content-digest", digest)
        .header("content-length", length)
        .body(body(""))
        .unwrap()
}

fn typed(kind: &str, data: impl Into<Bytes>) -> Option<Response<Body>> {
    Some(Response::builder().header("content-type", kind).body(body(data)).unwrap())
}

fn challenge(value: &str) -> Response<Body> {
    Response::builder().status(401).header("www-authenticate", value).body(body("")).unwrap()
}

fn redirect(to: &str) -> Response<Body> {
    Response::builder().status(307).header("location", to).body(body("")).unwrap()
}

#[tokio::test]
async fn every_wrong_answer_to_resolve_has_its_error() {
    let cases = [
        Case { what: "no such tag", fault: |_, _| None, code: Code::NotFound, says: "status 404" },
        Case { what: "gone", fault: always!(status(410, "")), code: Code::NotFound, says: "status 410" },
        Case { what: "denied", fault: always!(status(403, "no")), code: Code::PermissionDenied, says: "status 403" },
        Case { what: "down", fault: always!(status(500, "")), code: Code::Unavailable, says: "status 500" },
        Case { what: "bad gateway", fault: always!(status(502, "")), code: Code::Unavailable, says: "status 502" },
        Case { what: "too busy", fault: always!(status(429, "")), code: Code::ResourceExhausted, says: "status 429" },
        Case { what: "teapot", fault: always!(status(418, "")), code: Code::Unknown, says: "status 418" },
        Case {
            what: "401 without a challenge",
            fault: always!(status(401, "")),
            code: Code::Unauthenticated,
            says: "no challenge that is understood",
        },
        Case {
            what: "an unknown scheme",
            fault: always!(challenge("Negotiate")),
            code: Code::Unauthenticated,
            says: "offered were [\"negotiate\"]",
        },
        Case {
            what: "basic to anonymous",
            fault: always!(challenge("Basic realm=x")),
            code: Code::Unauthenticated,
            says: "wants a user name and password",
        },
        Case {
            what: "a realm that is no URL",
            fault: always!(challenge("Bearer realm=\"::\"")),
            code: Code::Unknown,
            says: "realm \"::\" is not a URL",
        },
        Case {
            what: "a realm with a password",
            fault: always!(challenge("Bearer realm=\"http://u:p@h/\"")),
            code: Code::Unknown,
            says: "is not a URL",
        },
        Case {
            what: "no realm",
            fault: always!(challenge("Bearer service=x")),
            code: Code::Unknown,
            says: "realm \"\" is not a URL",
        },
        Case {
            what: "a digest that is none",
            fault: always!(head(OCI_MANIFEST, "sha256:xyz", "5")),
            code: Code::Unknown,
            says: "Docker-Content-Digest",
        },
        Case {
            what: "an md5 digest",
            fault: always!(head(OCI_MANIFEST, "md5:00", "5")),
            code: Code::Unknown,
            says: "\"md5\" is not supported",
        },
        Case {
            what: "redirect without a target",
            fault: always!(status(302, "")),
            code: Code::Unknown,
            says: "redirect to no valid address",
        },
        Case {
            what: "redirect to a file",
            fault: always!(redirect("file:///etc/passwd")),
            code: Code::Unknown,
            says: "redirect to no valid address",
        },
        Case {
            what: "redirect to itself",
            fault: |asked, _| Some(redirect(&asked.path)),
            code: Code::Unknown,
            says: "more than 10 redirects",
        },
        Case {
            what: "not a manifest",
            fault: |asked, _| if asked.method == "HEAD" { Some(status(405, "")) } else { typed("text/html", "<html>") },
            code: Code::Unknown,
            says: "not a manifest",
        },
        Case {
            what: "malformed JSON",
            fault: |asked, _| if asked.method == "HEAD" { Some(status(405, "")) } else { typed("", "{") },
            code: Code::Unknown,
            says: "not a manifest",
        },
        Case {
            what: "a huge manifest",
            fault: |asked, _| {
                if asked.method == "HEAD" { Some(status(405, "")) } else { typed(OCI_MANIFEST, vec![b' '; 70 << 10]) }
            },
            code: Code::ResourceExhausted,
            says: "the manifest is larger than 65536 bytes",
        },
        Case {
            what: "schema 1",
            fault: always!(head(
                "application/vnd.docker.distribution.manifest.v1+json",
                Digest::sha256(b"").as_str(),
                "5"
            )),
            code: Code::Unknown,
            says: "schema 1 manifests are not supported",
        },
        Case {
            what: "a broken manifest",
            fault: |asked, _| {
                (asked.method == "GET").then(|| broken(Bytes::from_static(b"{"), 9)).or(Some(status(405, "")))
            },
            code: Code::Unavailable,
            says: "resolving 127.0.0.1:",
        },
    ];
    for Case { what, fault, code, says } in cases {
        let fake = Fake::with(fault).await;
        let error = session(&fake).await.resolve().await.unwrap_err();
        assert_eq!(error.code(), code, "{what}: {error}");
        for part in [says, &format!("http://{}", fake.host()), "team/app:v1"] {
            assert!(text(&error).contains(part), "{what}: {error} lacks {part:?}");
        }
    }
}

#[tokio::test]
async fn every_wrong_blob_has_its_error() {
    const DATA: &[u8] = b"hello, layer";
    let cases = [
        Case { what: "no such blob", fault: always!(status(404, "")), code: Code::NotFound, says: "status 404" },
        Case {
            what: "announced too long",
            fault: always!(Response::new(body("hello, layer and more"))),
            code: Code::DataLoss,
            says: "has 21 bytes where 12 were announced",
        },
        Case {
            what: "announced too short",
            fault: always!(Response::new(body("hello"))),
            code: Code::DataLoss,
            says: "has 5 bytes where 12 were announced",
        },
        Case {
            what: "always broken",
            fault: always!(broken(Bytes::new(), 12)),
            code: Code::Unavailable,
            says: "fetching",
        },
        Case {
            what: "always stalled",
            fault: always!(stalled(Bytes::new(), 12)),
            code: Code::DeadlineExceeded,
            says: "took longer than 300ms",
        },
        Case {
            what: "another range",
            fault: always!(
                Response::builder().status(206).header("content-range", "bytes 5-11/12").body(body("layer")).unwrap()
            ),
            code: Code::Unknown,
            says: "answers range \"bytes 5-11/12\"",
        },
        Case {
            what: "a range of nothing",
            fault: always!(Response::builder().status(206).body(body("")).unwrap()),
            code: Code::Unknown,
            says: "answers range \"nothing\"",
        },
        Case {
            what: "truncated without a length",
            fault: |_, count| {
                (count < 9).then(|| {
                    use http_body_util::BodyExt as _;
                    let pieces = futures::stream::iter([Ok(hyper::body::Frame::data(Bytes::from_static(b"")))]);
                    Response::new(http_body_util::StreamBody::new(pieces).boxed_unsync())
                })
            },
            code: Code::DataLoss,
            says: "ends after 0 of 12 bytes",
        },
        Case {
            what: "longer without a length",
            fault: |_, _| {
                use http_body_util::BodyExt as _;
                let pieces =
                    futures::stream::iter([Ok(hyper::body::Frame::data(Bytes::from_static(b"hello, layer!")))]);
                Some(Response::new(http_body_util::StreamBody::new(pieces).boxed_unsync()))
            },
            code: Code::DataLoss,
            says: "is longer than 12 bytes",
        },
    ];
    for Case { what, fault, code, says } in cases {
        let fake = Fake::with(fault).await;
        let blob = Descriptor::new(OCI_LAYER, Digest::sha256(DATA), 12);
        let error = read(&session(&fake).await, &blob).await.unwrap_err();
        assert_eq!(error.code(), code, "{what}: {error}");
        for part in [says, blob.digest.as_str()] {
            assert!(text(&error).contains(part), "{what}: {error} lacks {part:?}");
        }
    }
}

#[tokio::test]
async fn documents_are_verified() {
    let fake = Fake::start().await;
    let good = fake.manifest("v1", OCI_MANIFEST, MANIFEST);
    let session = session(&fake).await;
    let check = async |change: fn(&mut Descriptor), says: &str| {
        let mut descriptor = good.clone();
        change(&mut descriptor);
        let error = session.document(&descriptor).await.unwrap_err();
        assert!(text(&error).contains(says), "{error}");
    };
    check(|d| d.size += 1, "bytes where 44 were announced").await;
    check(|d| d.size = 1 << 30, "the manifest is larger than 65536 bytes").await;
    check(|d| d.digest = Digest::sha256(b"other"), "status 404").await;
    fake.state.lock().unwrap().manifests.get_mut(good.digest.as_str()).unwrap().1 =
        Bytes::from(MANIFEST.replace("2", "3"));
    check(|_| (), "has digest sha256:").await;
}

fn bearer(asked: &Asked) -> Option<Response<Body>> {
    if asked.path.starts_with("/token") {
        let token = asked.header("authorization").map_or("anonymous", |_| "known");
        return Some(Response::new(body(format!(r#"{{"token":"{token}"}}"#))));
    }
    if asked.header("authorization") == Some("Bearer known") {
        return None;
    }
    let realm = format!("http://{}/token", asked.header("host").unwrap());
    Some(challenge(&format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:team/app:pull\"")))
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_for_all() {
    let fake = Fake::with(|asked, _| bearer(asked)).await;
    let manifest = fake.manifest("v1", OCI_MANIFEST, MANIFEST);
    let credentials = Credentials { username: "u".into(), secret: "p".into(), ..Credentials::default() };
    let options = Options { credentials: Some(credentials), ..Options::default() };
    let session = session_with(&fake.reference("team/app:v1"), options).await;
    session.resolve().await.unwrap();
    session.document(&manifest).await.unwrap();
    let asked = fake.asked("/token");
    assert_eq!(asked.len(), 1);
    assert!(asked[0].path.contains("service=reg&scope=repository%3Ateam%2Fapp%3Apull"), "{}", asked[0].path);
    assert_eq!(asked[0].header("authorization"), Some("Basic dTpw"));
}

#[tokio::test]
async fn wrong_credentials_are_an_error_without_the_secret() {
    for scheme in ["Basic realm=x", "Bearer realm=\"http://HOST/token\""] {
        let fake = Fake::with(move |asked, _| {
            Some(challenge(&scheme.replace("HOST", asked.header("host").unwrap_or_default())))
        })
        .await;
        let credentials = Credentials { username: "u".into(), secret: "hunter2".into(), ..Credentials::default() };
        let options = Options { credentials: Some(credentials), ..Options::default() };
        let error = session_with(&fake.reference("a:b"), options.clone()).await.resolve().await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated, "{error}");
        assert!(!format!("{error:?} {options:?}").contains("hunter2"));
        assert!(fake.asked("").len() <= 4, "no endless dance");
    }
}

#[tokio::test]
async fn identity_and_registry_tokens_are_used() {
    let fake = Fake::with(|asked, _| match (asked.method.as_str(), asked.header("authorization")) {
        ("POST", _) => Some(Response::new(body(r#"{"access_token":"known"}"#))),
        _ => bearer(asked),
    })
    .await;
    fake.manifest("v1", OCI_MANIFEST, MANIFEST);
    let check = async |credentials: Credentials, posts: usize| {
        let options = Options { credentials: Some(credentials), ..Options::default() };
        session_with(&fake.reference("team/app:v1"), options).await.resolve().await.unwrap();
        assert_eq!(fake.asked("POST /token").len(), posts);
    };
    check(Credentials { secret: "refresh".into(), ..Credentials::default() }, 1).await;
    check(Credentials { registry_token: "known".into(), ..Credentials::default() }, 1).await;
}

#[tokio::test]
async fn credentials_and_headers_stay_with_their_host() {
    let other = Fake::start().await;
    let blob = other.blob(OCI_LAYER, "data");
    let target = format!("http://{}/v2/x/blobs/{}", other.host(), blob.digest);
    let fake = Fake::with(move |asked, _| match asked.header("authorization") {
        None => Some(challenge("Basic realm=x")),
        Some(_) => Some(redirect(&target)),
    })
    .await;
    let credentials = Credentials { username: "u".into(), secret: "p".into(), ..Credentials::default() };
    let headers = [("x-secret".to_owned(), "1".to_owned())].into();
    let options = Options { credentials: Some(credentials), headers, ..Options::default() };
    let session = session_with(&fake.reference("team/app:v1"), options).await;
    assert_eq!(read(&session, &blob).await.unwrap(), b"data");
    assert_eq!(fake.asked("GET")[1].header("x-secret"), Some("1"));
    let asked = &other.asked("GET")[0];
    assert_eq!((asked.header("authorization"), asked.header("x-secret")), (None, None));
}

/// Host configuration for `registry.test` in a directory of its own.
fn certs(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().join("registry.test");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("hosts.toml"), text).unwrap();
    directory
}

#[tokio::test]
async fn mirrors_are_asked_first_and_know_for_whom() {
    let mirror = Fake::with(|asked, _| asked.path.contains("v2").then(|| challenge("Basic realm=x"))).await;
    let main = Fake::start().await;
    let manifest = main.manifest("v1", OCI_MANIFEST, MANIFEST);
    let directory = certs(&format!(
        "server = \"http://{}\"\n[host.\"http://{}/proxy\"]\n[host.\"http://{}/proxy\".header]\nx-for = \"mirror\"\n",
        main.host(),
        mirror.host(),
        mirror.host()
    ));
    let credentials = Credentials { username: "u".into(), secret: "p".into(), ..Credentials::default() };
    let options = Options {
        config_paths: vec![directory.path().to_owned()],
        credentials: Some(credentials),
        ..Options::default()
    };
    let reference = Reference::complete("registry.test/team/app:v1").unwrap();
    let session = session_with(&reference, options).await;
    assert_eq!(session.resolve().await.unwrap(), manifest);
    let asked = &mirror.asked("HEAD")[0];
    assert_eq!(asked.path, "/proxy/v2/team/app/manifests/v1?ns=registry.test");
    assert_eq!(asked.header("x-for"), Some("mirror"));
    assert!(mirror.asked("").iter().all(|asked| asked.header("authorization").is_none()));
    assert_eq!(main.asked("HEAD")[0].header("x-for"), None);
}

#[tokio::test]
async fn the_error_lists_every_host() {
    let mirror = Fake::with(|_, _| Some(status(500, ""))).await;
    let main = Fake::start().await;
    let directory = certs(&format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\n[host.\"http://127.0.0.1:1\"]\ncapabilities = [\"push\"]\n",
        main.host(),
        mirror.host(),
    ));
    let reference = Reference::complete("registry.test/team/app:v1").unwrap();
    let options = Options { config_paths: vec![directory.path().to_owned()], ..Options::default() };
    let error = session_with(&reference, options).await.resolve().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "resolving registry.test/team/app:v1: http://{}: status 500; \
             http://{}: status 404",
            mirror.host(),
            main.host()
        )
    );
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(mirror.asked("HEAD").len(), 1, "the registry's word ends the retries");
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let reference = Reference::complete("127.0.0.1:1/a:b").unwrap();
    let error = session_with(&reference, Options::default()).await.resolve().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn pushes_what_is_missing() {
    let fake = Fake::start().await;
    let session = session(&fake).await;
    let data = Bytes::from_static(b"pushed");
    let blob = Descriptor::new(OCI_LAYER, Digest::sha256(&data), 6);
    assert!(!session.exists(&blob).await.unwrap());
    let stream = futures::stream::iter([Ok(data.slice(..3)), Ok(data.slice(3..))]);
    session.push_blob(&blob, stream).await.unwrap();
    assert!(session.exists(&blob).await.unwrap());
    let manifest = Descriptor::new(OCI_MANIFEST, Digest::sha256(MANIFEST.as_bytes()), MANIFEST.len() as u64);
    session.push_manifest(&manifest, Some("v1"), Bytes::from_static(MANIFEST.as_bytes())).await.unwrap();
    assert_eq!(session.resolve().await.unwrap(), manifest);
    let wrong = Descriptor::new(OCI_LAYER, Digest::sha256(b"x"), 1);
    let error = session.push_blob(&wrong, futures::stream::iter([Ok(Bytes::from_static(b"y"))])).await.unwrap_err();
    assert!(text(&error).contains("digest invalid"), "{error}");
}
