//! A registry in this process, on loopback, with faults by request. Shared by the tests of this crate and of
//! `kevel-transfer`.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its own part, and a broken helper may panic"
)]

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use kevel_model::{Descriptor, Digest};
use tokio::{net::TcpListener, task::JoinHandle};

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What was asked: method, path with query, and headers.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Answers instead of the registry where it wants to. The number counts the requests for the same method and path.
pub type Fault = dyn Fn(&Asked, usize) -> Option<Response<Body>> + Send + Sync;

#[derive(Default)]
pub struct State {
    pub blobs: HashMap<String, Bytes>,
    /// By tag or digest: media type and body.
    pub manifests: HashMap<String, (String, Bytes)>,
    pub asked: Vec<Asked>,
}

pub struct Fake {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start() -> Self {
        Self::with(|_, _| None).await
    }

    /// A registry with a fault.
    pub async fn with(fault: impl Fn(&Asked, usize) -> Option<Response<Body>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, fault): (_, Arc<Fault>) = (state.clone(), Arc::new(fault));
        let task = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let (state, fault) = (shared.clone(), fault.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let (state, fault) = (state.clone(), fault.clone());
                        async move { Ok::<_, Infallible>(answer(&state, &*fault, request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self { address, state, task }
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// A reference to `repo:tag` here.
    pub fn reference(&self, rest: &str) -> kevel_model::Reference {
        kevel_model::Reference::complete(&format!("{}/{rest}", self.address)).unwrap()
    }

    pub fn blob(&self, kind: &str, data: impl Into<Bytes>) -> Descriptor {
        let data = data.into();
        let digest = Digest::sha256(&data);
        let descriptor = Descriptor::new(kind, digest.clone(), data.len() as u64);
        self.state.lock().unwrap().blobs.insert(digest.to_string(), data);
        descriptor
    }

    pub fn manifest(&self, tag: &str, kind: &str, body: impl Into<Bytes>) -> Descriptor {
        let body = body.into();
        let digest = Digest::sha256(&body);
        let descriptor = Descriptor::new(kind, digest.clone(), body.len() as u64);
        let mut state = self.state.lock().unwrap();
        for name in [tag, digest.as_str()] {
            state.manifests.insert(name.to_owned(), (kind.to_owned(), body.clone()));
        }
        descriptor
    }

    /// The requests so far whose method and path contain `part`.
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|asked| format!("{} {}", asked.method, asked.path).contains(part)).cloned().collect()
    }
}

pub fn body(data: impl Into<Bytes>) -> Body {
    Full::new(data.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn status(status: u16, text: &'static str) -> Response<Body> {
    Response::builder().status(status).body(body(text)).unwrap()
}

/// A body that sends `data` and then breaks the connection, though `length` were announced.
pub fn broken(data: Bytes, length: u64) -> Response<Body> {
    use futures::StreamExt as _;
    // Pending for a moment, because that is when hyper sends what it has.
    let error = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        Err(std::io::Error::other("broken on purpose"))
    };
    let pieces = stream::iter([Ok(Frame::data(data))]).chain(stream::once(error));
    Response::builder().header("content-length", length).body(StreamBody::new(pieces).boxed_unsync()).unwrap()
}

/// A body that sends `data` and then nothing, for ever.
pub fn stalled(data: Bytes, length: u64) -> Response<Body> {
    use futures::StreamExt as _;
    let pieces = stream::iter([Ok(Frame::data(data))]).chain(stream::pending());
    Response::builder().header("content-length", length).body(StreamBody::new(pieces).boxed_unsync()).unwrap()
}

async fn answer(state: &Mutex<State>, fault: &Fault, request: Request<Incoming>) -> Response<Body> {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let asked = Asked { method: parts.method, path, headers: parts.headers };
    let count = {
        let mut state = state.lock().unwrap();
        let same = |other: &&Asked| other.method == asked.method && other.path == asked.path;
        let count = state.asked.iter().filter(same).count();
        state.asked.push(asked.clone());
        count
    };
    if let Some(response) = fault(&asked, count) {
        return response;
    }
    let sent = incoming.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    serve(&mut state.lock().unwrap(), &asked, sent)
}

fn serve(state: &mut State, asked: &Asked, sent: Bytes) -> Response<Body> {
    let path = asked.path.split('?').next().unwrap_or_default();
    let (place, name) = path.rsplit_once('/').unwrap_or_default();
    let collection = place.rsplit('/').next().unwrap_or_default();
    let query = |key: &str| {
        let query = asked.path.split_once('?')?.1;
        let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{key}=")))?;
        Some(value.replace("%3A", ":"))
    };
    match (&asked.method, collection, name) {
        (&Method::GET | &Method::HEAD, "manifests", name) => match state.manifests.get(name) {
            None => status(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such manifest"}]}"#),
            Some((kind, data)) => Response::builder()
                .header("content-type", kind)
                .header("docker-content-digest", Digest::sha256(data).as_str())
                .body(body(data.clone()))
                .unwrap(),
        },
        (&Method::GET | &Method::HEAD, "blobs", digest) => match state.blobs.get(digest) {
            None => status(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}"#),
            Some(data) => ranged(data, asked.header("range")),
        },
        (&Method::POST, "uploads", _) => {
            let location = format!("{path}session?state=x");
            Response::builder().status(202).header("location", location).body(body("")).unwrap()
        }
        (&Method::PUT, "uploads", _) => match query("digest") {
            Some(digest) if digest == Digest::sha256(&sent).as_str() => {
                state.blobs.insert(digest, sent);
                status(201, "")
            }
            _ => status(400, "digest invalid"),
        },
        (&Method::PUT, "manifests", name) => {
            let kind = asked.header("content-type").unwrap_or_default().to_owned();
            let digest = Digest::sha256(&sent);
            state.manifests.insert(digest.to_string(), (kind.clone(), sent.clone()));
            state.manifests.insert(name.to_owned(), (kind, sent));
            Response::builder().status(201).header("docker-content-digest", digest.as_str()).body(body("")).unwrap()
        }
        _ => status(404, "no such route"),
    }
}

fn ranged(data: &Bytes, range: Option<&str>) -> Response<Body> {
    match range.and_then(|range| asked_range(range, data.len())) {
        Some((from, to)) if from < to => part(data, from, to),
        _ => Response::builder().body(body(data.clone())).unwrap(),
    }
}

/// What a `Range` header asks for, as start and end.
pub fn asked_range(range: &str, length: usize) -> Option<(usize, usize)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let to = if to.is_empty() { length } else { to.parse::<usize>().ok()? + 1 };
    Some((from.parse().ok()?, to.min(length)))
}

/// The answer to a request for a range.
pub fn part(data: &Bytes, from: usize, to: usize) -> Response<Body> {
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header("content-range", format!("bytes {from}-{}/{}", to - 1, data.len()))
        .body(body(data.slice(from..to)))
        .unwrap()
}
