//! Connections: one HTTP client per TLS identity, shared by all sessions, and a request sent with its deadline.

use std::{
    collections::HashMap,
    error::Error as StdError,
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    Error, Settings, Why,
    hosts::{Host, Identity},
    tls,
};

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// What sends requests.
pub(crate) type Http = Client<HttpsConnector<HttpConnector>, Body>;

/// More identities than this are not kept.
const MAX_CLIENTS: usize = 64;
/// Connections that nobody uses are closed after this.
const IDLE: Duration = Duration::from_secs(60);

/// No body.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is here already.
pub(crate) fn full(data: impl Into<Bytes>) -> Body {
    Full::new(data.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What makes two hosts share connections: the identity with the state of its files, and the connect timeout.
#[derive(PartialEq, Eq, Hash)]
struct Key(Identity, Vec<Option<(SystemTime, u64)>>, Duration);

/// The clients of this process.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<Key, Http>>);

impl Clients {
    /// The client for a host; reads its certificates if they are new or have changed. Blocks on small files.
    pub(crate) fn client(&self, settings: &Settings, host: &Host) -> Result<Http, Error> {
        let identity = &host.identity;
        let files =
            identity.ca.iter().chain(identity.client.iter().flat_map(|(cert, key)| [cert].into_iter().chain(key)));
        let system = settings.system_roots.iter().find(|file| file.is_file());
        let states = files.chain(system).map(|file| state(file)).collect();
        let connect_timeout = host.dial_timeout.unwrap_or(settings.connect_timeout);
        let key = Key(identity.clone(), states, connect_timeout);
        if let Some(client) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(client.clone());
        }
        let client = build(settings, identity, connect_timeout)?;
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        Ok(clients.entry(key).or_insert(client).clone())
    }
}

fn state(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn build(settings: &Settings, identity: &Identity, connect_timeout: Duration) -> Result<Http, Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(30)));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls::config(settings, identity)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(8)
        .build(connector))
}

/// Why a request got no answer.
pub(crate) enum Unsent {
    /// The other side was reached but does not speak TLS, as it seems.
    NotTls(Why),
    /// Anything else.
    Other(Why),
}

/// Sends a request; answers when the head of the response is there.
pub(crate) async fn send(http: &Http, request: Request<Body>, limit: Duration) -> Result<Response<Incoming>, Unsent> {
    match tokio::time::timeout(limit, http.request(request)).await {
        Err(_) => Err(Unsent::Other(Why::Timeout("the answer", limit))),
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            let why = Why::Connection(chain(&error));
            if error.is_connect() && !unreachable(&error) { Err(Unsent::NotTls(why)) } else { Err(Unsent::Other(why)) }
        }
    }
}

/// Whether nobody was reached at all, as opposed to somebody who spoke something else.
fn unreachable(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind as Kind;
            let kinds = [Kind::ConnectionRefused, Kind::TimedOut, Kind::HostUnreachable, Kind::NetworkUnreachable];
            if kinds.contains(&error.kind()) {
                return true;
            }
        }
        if error.to_string().contains("dns error") {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with its causes, each once.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        next = error.source();
    }
    text
}
