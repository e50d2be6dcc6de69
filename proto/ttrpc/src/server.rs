//! The answering end: services by name, connections, graceful shutdown.

mod connection;
mod handler;
mod service;
mod stream;

pub use service::{Context, Ending, Peer, Service, decode, encode, unary};
pub use stream::{Incoming, Outgoing, ServerStream};

use crate::limits::Limits;
use connection::Connection;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A service of this name is registered already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("register ttrpc service {name:?}: the name is taken")]
pub struct Duplicate {
    /// The service name.
    pub name: String,
}

/// Services and the rules under which they are served. Clones are independent but share the services.
#[derive(Clone)]
pub struct Server {
    /// Shared with every connection.
    services: Arc<HashMap<String, Arc<dyn Service>>>,
    limits: Limits,
    max_calls: usize,
    max_connections: usize,
    drain: Duration,
    same_uid: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            services: Arc::default(),
            limits: Limits::default(),
            max_calls: 1024,
            max_connections: 4096,
            drain: Duration::from_secs(10),
            same_uid: false,
        }
    }
}

impl Server {
    /// A server without services: 1024 calls per connection, 4096 connections, ten seconds to drain, any peer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service under its full name.
    ///
    /// # Errors
    ///
    /// [`Duplicate`] when the name is taken; the service that has it stays.
    pub fn register(&mut self, name: impl Into<String>, service: Arc<dyn Service>) -> Result<(), Duplicate> {
        let name = name.into();
        if self.services.contains_key(&name) {
            return Err(Duplicate { name });
        }
        Arc::make_mut(&mut self.services).insert(name, service);
        Ok(())
    }

    /// The bounds of each connection.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How many calls and streams of one connection may run at the same time; more are answered `ResourceExhausted`.
    #[must_use]
    pub fn max_calls(mut self, calls: usize) -> Self {
        self.max_calls = calls;
        self
    }

    /// How many connections of [`Self::serve`] may be open; more wait in the listener's backlog.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How long running calls may take after shutdown began, before they are dropped.
    #[must_use]
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    /// Refuses peers whose user id (`SO_PEERCRED`, as of their `connect`) is not the effective one of this process.
    #[must_use]
    pub fn require_same_uid(mut self) -> Self {
        self.same_uid = true;
        self
    }

    /// Serves every connection of the listener until `shutdown`, then lets running calls finish, at most for
    /// [`Self::drain`]. Dropping the future closes every connection at once.
    ///
    /// The listener may be given by value, or by reference when it outlives the server.
    pub async fn serve(&self, listener: impl Borrow<UnixListener>, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        let mut backoff = Backoff::default();
        loop {
            let full = connections.len() >= self.max_connections;
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.borrow().accept(), if !full => match accepted {
                    Ok((stream, _)) => {
                        backoff = Backoff::default();
                        if let Some(peer) = self.admit(&stream) {
                            connections.spawn(self.connection(Some(peer), &shutdown).run(stream));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "ttrpc accept failed");
                        tokio::select! {
                            () = shutdown.cancelled() => break,
                            () = tokio::time::sleep(backoff.next()) => {}
                        }
                    }
                },
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// Serves one connection over anything: until the peer closes it, or `shutdown` and the running calls are done. The
    /// peer is whom the caller knows it to be; it is not checked.
    pub async fn serve_connection<IO>(&self, io: IO, peer: Option<Peer>, shutdown: CancellationToken)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        self.connection(peer, &shutdown).run(io).await;
    }

    fn connection(&self, peer: Option<Peer>, shutdown: &CancellationToken) -> Connection {
        Connection {
            services: self.services.clone(),
            limits: self.limits,
            max_calls: self.max_calls,
            drain: self.drain,
            peer,
            shutdown: shutdown.clone(),
        }
    }

    /// Who connected, unless they may not.
    fn admit(&self, stream: &UnixStream) -> Option<Peer> {
        let peer = match peer(stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "ttrpc peer refused: its credentials cannot be read");
                return None;
            }
        };
        let own = rustix::process::geteuid().as_raw();
        if self.same_uid && peer.uid != own {
            tracing::warn!(uid = peer.uid, pid = peer.pid, "ttrpc peer refused: another user");
            return None;
        }
        Some(peer)
    }
}

fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer { pid: credentials.pid(), uid: credentials.uid(), gid: credentials.gid() })
}

/// Pauses after a failed accept (out of file descriptors, mostly): 5 ms, doubling, at most a second.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = Duration::from_millis(5 << self.failures.min(8));
        self.failures += 1;
        pause.min(Duration::from_secs(1))
    }
}
