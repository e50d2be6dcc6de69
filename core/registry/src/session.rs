//! Registries for the life of the daemon, and sessions for one transfer each.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use kevel_model::{Digest, Reference};

use crate::{
    Credentials, Error, Settings,
    auth::Tokens,
    hosts::{self, Host, Scheme},
    transport::{Clients, Http},
};

/// All registries. Cheap to clone; connections are shared.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    clients: Clients,
}

/// What a session needs beside the reference.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Directories with host configuration; the client's own when empty.
    pub config_paths: Vec<PathBuf>,
    /// Who the puller is; `None` for anonymous.
    pub credentials: Option<Credentials>,
    /// Headers for every request to the registry's hosts.
    pub headers: BTreeMap<String, String>,
    /// Plain HTTP for a registry that no file mentions.
    pub plain_http: bool,
}

impl Registry {
    /// A client that behaves as `settings` say.
    pub fn new(settings: Settings) -> Self {
        Self { shared: Arc::new(Shared { settings, clients: Clients::default() }) }
    }

    /// How this client behaves.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// A session for `reference`. Reads the host configuration and certificates.
    pub async fn session(&self, reference: &Reference, options: Options) -> Result<Session, Error> {
        let (shared, reference) = (self.shared.clone(), reference.clone());
        tokio::task::spawn_blocking(move || Session::open(shared, reference, options))
            .await
            .map_err(|error| Error::Invalid(format!("reading host configuration: {error}")))?
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("settings", &self.shared.settings).finish()
    }
}

/// One transfer's view of a registry: its hosts, credentials and tokens. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    shared: Arc<Shared>,
    pub(crate) reference: Reference,
    pub(crate) hosts: Vec<Endpoint>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// A document that resolving had to read anyway.
    pub(crate) seen: Mutex<Option<(Digest, Bytes)>>,
}

/// A host with its connections and what was learned of it.
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) http: Http,
    pub(crate) tokens: Tokens,
    speaks_plain: AtomicBool,
}

impl Endpoint {
    /// The scheme to try now.
    pub(crate) fn scheme(&self) -> &'static str {
        match self.host.scheme {
            Scheme::Http => "http",
            Scheme::Either if self.speaks_plain.load(Ordering::Relaxed) => "http",
            Scheme::Either | Scheme::Https => "https",
        }
    }

    /// Whether a host that seems not to speak TLS may be asked in plain text; remembers it.
    pub(crate) fn fall_back(&self) -> bool {
        self.host.scheme == Scheme::Either && !self.speaks_plain.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme(), self.host.authority)
    }
}

impl Session {
    fn open(shared: Arc<Shared>, reference: Reference, options: Options) -> Result<Self, Error> {
        let settings = &shared.settings;
        let paths = if options.config_paths.is_empty() { &settings.config_paths } else { &options.config_paths };
        let hosts = hosts::load(paths, reference.registry(), options.plain_http)?
            .into_iter()
            .map(|host| {
                let http = shared.clients.client(settings, &host)?;
                Ok(Endpoint { http, host, tokens: Tokens::default(), speaks_plain: AtomicBool::new(false) })
            })
            .collect::<Result<_, Error>>()?;
        let headers = options.headers.iter().map(header).collect::<Result<_, _>>()?;
        let credentials = options.credentials;
        Ok(Self { inner: Arc::new(Inner { shared, reference, hosts, credentials, headers, seen: Mutex::default() }) })
    }

    /// What the session is for.
    pub fn reference(&self) -> &Reference {
        &self.inner.reference
    }

    /// The hosts that are asked, in order.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.inner.hosts.iter().map(|endpoint| &endpoint.host)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.shared.settings
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("reference", &self.inner.reference).finish_non_exhaustive()
    }
}

fn header((name, value): (&String, &String)) -> Result<(HeaderName, HeaderValue), Error> {
    let parsed = name.parse().map_err(|_| Error::Invalid(format!("header {name:?}: not the name of a header")))?;
    let mut value =
        HeaderValue::from_str(value).map_err(|_| Error::Invalid(format!("header {name:?}: not a header's value")))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}
