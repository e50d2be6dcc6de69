//! A backend's socket: connected when first needed, again after it broke, one connection for all who name the address.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use kevel_contract::{Scope, call::Target};
use kevel_model::{Code, Error, Result};
use tokio::net::UnixStream;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::convert;

/// The longest pause between attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(3);
/// How long connecting may take.
const DIAL: Duration = Duration::from_secs(5);
/// The longest a call to another process may take; what a large commit or unpack needs, and far from forever.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A backend behind a Unix socket. Clones share the connection, and so does everyone who names the same address.
#[derive(Clone, Debug)]
pub struct Remote {
    channel: Channel,
    name: Arc<str>,
    deadline: Duration,
    proxy: bool,
    _dialer: Arc<Dialer>,
}

#[derive(Debug)]
struct Dialer {
    path: PathBuf,
    channel: Mutex<Option<Channel>>,
    pause: Mutex<Pause>,
}

/// When to connect again.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

static DIALERS: LazyLock<Mutex<HashMap<PathBuf, Weak<Dialer>>>> = LazyLock::new(Mutex::default);

impl Remote {
    /// A backend at a socket's path, with or without `unix://` in front. Nothing is connected yet; needs a tokio
    /// runtime.
    pub fn new(name: impl Into<Arc<str>>, address: &str) -> Result<Self> {
        let path = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
        if !path.is_absolute() {
            return Err(Error::invalid_argument(format!("address {address:?} is not an absolute path of a socket")));
        }
        let mut dialers = DIALERS.lock().unwrap_or_else(PoisonError::into_inner);
        dialers.retain(|_, dialer| dialer.strong_count() > 0);
        let dialer = dialers.get(&path).and_then(Weak::upgrade).unwrap_or_else(|| {
            let dialer = Arc::new(Dialer { path: path.clone(), channel: Mutex::default(), pause: Mutex::default() });
            dialers.insert(path, Arc::downgrade(&dialer));
            dialer
        });
        let mut shared = dialer.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = shared.get_or_insert_with(|| connect(&dialer)).clone();
        drop(shared);
        Ok(Self { channel, name: name.into(), deadline: DEADLINE, proxy: false, _dialer: dialer })
    }

    /// The same backend with another deadline for its calls.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same backend as a proxy plugin: where this daemon keeps what is its own. Leases are words of this daemon's
    /// records; a backend with leases of its own, as another daemon is, knows nothing of them and is not told.
    #[must_use]
    pub(crate) fn proxy(mut self) -> Self {
        self.proxy = true;
        self
    }

    /// Whether it is a proxy plugin's.
    pub(crate) fn is_proxy(&self) -> bool {
        self.proxy
    }

    /// A request to the backend in a scope.
    pub(crate) fn request<T>(&self, scope: &Scope, message: T) -> Result<Request<T>> {
        match (self.proxy, &scope.lease) {
            (true, Some(_)) => request(&Scope::new(scope.namespace.clone()), message),
            _ => request(scope, message),
        }
    }

    /// Names the backend in an error that says that it can't be reached.
    pub(crate) fn blame(&self, error: Error) -> Error {
        if error.code() == Code::Unavailable { error.context(self.name.to_string()) } else { error }
    }

    /// Whom a handle to this backend names in errors.
    pub fn target(&self) -> Target {
        Target::remote(self.name.clone(), self.deadline)
    }

    /// The connection, for a generated client.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The longest that one step of a stream may take.
    pub(crate) fn patience(&self) -> Duration {
        self.deadline
    }
}

/// A generated client over a backend's connection, with our limit for messages.
macro_rules! client {
    ($client:ty, $remote:expr) => {
        <$client>::new($remote.channel())
            .max_decoding_message_size(kevel_proto::MESSAGE_LIMIT)
            .max_encoding_message_size(kevel_proto::MESSAGE_LIMIT)
    };
}
pub(crate) use client;

/// A request in a scope.
pub(crate) fn request<T>(scope: &Scope, message: T) -> Result<Request<T>> {
    let mut request = Request::new(message);
    convert::scope::wire(scope, request.metadata_mut())?;
    Ok(request)
}

/// The message of an answer.
pub(crate) fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T> {
    answer.map(Response::into_inner).map_err(convert::error::error)
}

fn connect(dialer: &Arc<Dialer>) -> Channel {
    // The channel must not keep its dialer alive, which holds the channel.
    let dialer = Arc::downgrade(dialer);
    let connector = tower::service_fn(move |_: Uri| {
        let dialer = dialer.clone();
        async move {
            match dialer.upgrade() {
                Some(dialer) => dialer.dial().await.map(TokioIo::new),
                None => Err(std::io::ErrorKind::NotConnected.into()),
            }
        }
    });
    // The address is a formality: the connector knows the socket.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

impl Dialer {
    async fn dial(&self) -> std::io::Result<UnixStream> {
        let until = self.pause.lock().unwrap_or_else(PoisonError::into_inner).until;
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
        let dialed = tokio::time::timeout(DIAL, UnixStream::connect(&self.path)).await;
        let dialed = dialed.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        match &dialed {
            Ok(_) => *pause = Pause::default(),
            Err(_) => pause.fail(),
        }
        dialed.map_err(|error| {
            std::io::Error::new(error.kind(), format!("connecting to {}: {error}", self.path.display()))
        })
    }
}

impl Pause {
    /// Another failure: 50 ms, doubling.
    fn fail(&mut self) {
        let pause = Duration::from_millis(50 << self.failures.min(10)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(Instant::now() + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_three_seconds() {
        let mut pause = Pause::default();
        let pauses: Vec<_> = (0..9)
            .map(|_| {
                let before = Instant::now();
                pause.fail();
                let after = Instant::now();
                let until = pause.until.unwrap();
                assert!(until - after <= MAX_BACKOFF);
                (until - before).as_millis() / 50 * 50
            })
            .collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3000, 3000, 3000]);
    }

    #[tokio::test]
    async fn a_proxy_is_not_told_of_leases() {
        let remote = Remote::new("a", "/run/kevel-test/none.sock").unwrap();
        let scope = Scope { lease: Some("mine".to_owned()), ..Scope::new(kevel_model::Namespace::k8s()) };
        let told = |remote: &Remote| {
            let request = remote.request(&scope, ()).unwrap();
            let has = |key: &str| request.metadata().get(key).map(|value| value.to_str().unwrap().to_owned());
            (has("containerd-namespace"), has("containerd-lease"))
        };
        assert_eq!(told(&remote), (Some("k8s.io".to_owned()), Some("mine".to_owned())));
        assert_eq!(told(&remote.proxy()), (Some("k8s.io".to_owned()), None));
    }

    #[tokio::test]
    async fn one_address_has_one_dialer_as_long_as_somebody_uses_it() {
        let first = Remote::new("a", "unix:///run/kevel-test/none.sock").unwrap();
        let second = Remote::new("b", "/run/kevel-test/none.sock").unwrap();
        assert!(Arc::ptr_eq(&first._dialer, &second._dialer));
        assert!(Remote::new("c", "relative.sock").unwrap_err().chain().contains("relative.sock"));
    }
}
