//! The server: URLs with tokens on one side, clients that come for them on the other.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{Method, Request, StatusCode};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use kevel_model::{Error, Result};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    command::{self, Ended, Work},
    config::Config,
    forward,
    idle::Idle,
    request::{Attach, Exec, Pending, PortForward, Streams},
    runtime::Runtime,
    tls,
    token::Tokens,
    upgrade::{self, Answer, Refusal, refuse},
    websocket,
};

/// Connections at the same time.
const MOST: usize = 4096;
/// How long a client may take for TLS and for its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure to accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives URLs to requests. Clones are the same.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tokens: Tokens,
    base: String,
    stop: CancellationToken,
}

/// Waits for clients.
pub struct Listener {
    shared: Arc<Shared>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    idle: Duration,
}

impl Endpoint {
    /// Listens as configured. Clients wait until [`Listener::serve`].
    ///
    /// # Errors
    /// A wrong value, by the name of its key; an address that cannot be listened on.
    pub async fn bind(config: &Config) -> Result<(Self, Listener)> {
        let (address, port, idle) = (config.address()?, config.port()?, config.idle()?);
        let tls = match config.tls()? {
            None => None,
            Some(tls) => {
                let made = tokio::task::spawn_blocking(move || tls::acceptor(&tls, address)).await;
                Some(made.map_err(|error| Error::internal("making the server's TLS").with_source(error))??)
            }
        };
        let failed = |error| Error::io(format!("listening for streams on {}", SocketAddr::new(address, port)), error);
        let listener = TcpListener::bind((address, port)).await.map_err(failed)?;
        let bound = reachable(listener.local_addr().map_err(failed)?);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{bound}");
        let shared = Arc::new(Shared { tokens: Tokens::default(), base, stop: CancellationToken::new() });
        Ok((Self(shared.clone()), Listener { shared, listener, tls, idle }))
    }

    /// Where the server is, such as `http://127.0.0.1:41234`.
    pub fn base(&self) -> &str {
        &self.0.base
    }

    /// A URL for a command, good once and for a minute.
    ///
    /// # Errors
    /// A request that cannot be done; too many that wait.
    pub fn exec(&self, request: Exec) -> Result<String> {
        request.check()?;
        self.url("exec", Pending::Exec(request))
    }

    /// A URL for a container's streams, good once and for a minute.
    ///
    /// # Errors
    /// A request that cannot be done; too many that wait.
    pub fn attach(&self, request: Attach) -> Result<String> {
        request.check()?;
        self.url("attach", Pending::Attach(request))
    }

    /// A URL for a pod's ports, good once and for a minute.
    ///
    /// # Errors
    /// Too many that wait.
    pub fn port_forward(&self, request: PortForward) -> Result<String> {
        self.url("portforward", Pending::PortForward(request))
    }

    /// Ends the server and every connection.
    pub fn close(&self) {
        self.0.stop.cancel();
    }

    fn url(&self, path: &str, request: Pending) -> Result<String> {
        Ok(format!("{}/{path}/{}", self.0.base, self.0.tokens.give(request)?))
    }
}

/// The address that clients on this node use for a listener: one that listens everywhere is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Listener {
    /// Serves clients until [`Endpoint::close`].
    pub async fn serve(self, runtime: Arc<dyn Runtime>) {
        let places = Arc::new(Semaphore::new(MOST));
        let stop = self.shared.stop.clone();
        let accepting = async {
            loop {
                // Nobody closes the semaphore.
                let Ok(place) = places.clone().acquire_owned().await else { return };
                match self.listener.accept().await {
                    Ok((socket, _)) => {
                        let client = Client {
                            shared: self.shared.clone(),
                            runtime: runtime.clone(),
                            idle: self.idle,
                            place: Arc::new(place),
                        };
                        tokio::spawn(client.serve(socket, self.tls.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a streaming client");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = accepting => {}
        }
    }
}

/// One client's connection.
#[derive(Clone)]
struct Client {
    shared: Arc<Shared>,
    runtime: Arc<dyn Runtime>,
    idle: Duration,
    /// Held as long as the connection lives.
    place: Arc<OwnedSemaphorePermit>,
}

impl Client {
    async fn serve(self, socket: TcpStream, tls: Option<TlsAcceptor>) {
        // Keystrokes are not to wait for more.
        let _ = socket.set_nodelay(true);
        let stop = self.shared.stop.clone();
        let serving = async {
            let Some(tls) = tls else { return self.http(socket).await };
            match tokio::time::timeout(PATIENCE, tls.accept(socket)).await {
                Ok(Ok(socket)) => self.http(socket).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS of a streaming client"),
                Err(_) => tracing::debug!("streaming client did not begin TLS"),
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serving => {}
        }
    }

    async fn http(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(|request| {
            let client = self.clone();
            async move { Ok::<_, Infallible>(client.answer(request)) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        if let Err(error) = served.await {
            tracing::debug!(%error, "serving a streaming client");
        }
    }

    fn answer(self, mut request: Request<Incoming>) -> Answer {
        if request.method() != Method::GET && request.method() != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "GET or POST").into();
        }
        let taken =
            request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/')).and_then(|(kind, token)| {
                let pending = self.shared.tokens.take(token)?;
                matches!(
                    (kind, &pending),
                    ("exec", Pending::Exec(_))
                        | ("attach", Pending::Attach(_))
                        | ("portforward", Pending::PortForward(_))
                )
                .then_some(pending)
            });
        let Some(pending) = taken else {
            return refuse(StatusCode::NOT_FOUND, "no request waits here; a token is good once and for a minute")
                .into();
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let runtime = self.runtime.clone();
        let begun = match pending {
            Pending::Exec(exec) => {
                let streams = exec.streams;
                let work: Work = Box::new(move |session| {
                    Box::pin(async move {
                        match runtime.exec(exec, session).await {
                            Ok(0) => Ended::Success,
                            Ok(code) => Ended::Code(code),
                            Err(error) => failed("error executing command in container", &error),
                        }
                    })
                });
                self.command(&request, upgrade, streams, work)
            }
            Pending::Attach(attach) => {
                let streams = attach.streams;
                let work: Work = Box::new(move |session| {
                    Box::pin(async move {
                        match runtime.attach(attach, session).await {
                            Ok(()) => Ended::Success,
                            Err(error) => failed("error attaching to container", &error),
                        }
                    })
                });
                self.command(&request, upgrade, streams, work)
            }
            Pending::PortForward(forward) => self.forward(&request, upgrade, forward),
        };
        begun.unwrap_or_else(Answer::from)
    }

    fn command(
        self,
        request: &Request<Incoming>,
        upgrade: OnUpgrade,
        streams: Streams,
        work: Work,
    ) -> Result<Answer, Refusal> {
        let (agreed, answer) = upgrade::command(request.headers())?;
        self.begin(upgrade, move |io, idle| async move {
            let transport = match agreed {
                upgrade::Command::Spdy(version) => command::Transport::Spdy(io, version),
                upgrade::Command::WebSocket(version, codec) => {
                    command::Transport::WebSocket(Box::new(websocket::server(io).await), version, codec)
                }
            };
            command::serve(transport, streams, idle, work).await;
        });
        Ok(answer)
    }

    fn forward(self, request: &Request<Incoming>, upgrade: OnUpgrade, forward: PortForward) -> Result<Answer, Refusal> {
        let (agreed, answer) = upgrade::forward(request.headers())?;
        if matches!(agreed, upgrade::Forward::Channels(_)) && forward.ports.is_empty() {
            return Err(refuse(StatusCode::BAD_REQUEST, "WebSocket channels need a request that names ports"));
        }
        let runtime = self.runtime.clone();
        self.begin(upgrade, move |io, idle| async move {
            let transport = match agreed {
                upgrade::Forward::Spdy => forward::Transport::Spdy(io),
                upgrade::Forward::Tunnelled => forward::Transport::Tunnelled(Box::new(websocket::server(io).await)),
                upgrade::Forward::Channels(codec) => {
                    forward::Transport::Channels(Box::new(websocket::server(io).await), codec)
                }
            };
            forward::serve(transport, forward, idle, runtime).await;
        });
        Ok(answer)
    }

    /// Goes on with the connection once the answer is sent.
    fn begin<F>(
        self,
        upgrade: OnUpgrade,
        serve: impl FnOnce(TokioIo<hyper::upgrade::Upgraded>, Idle) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let Self { shared, idle, place, .. } = self;
        tokio::spawn(async move {
            let serving = async {
                match upgrade.await {
                    Ok(upgraded) => serve(TokioIo::new(upgraded), Idle::new(idle)).await,
                    Err(error) => tracing::debug!(%error, "upgrading a streaming client"),
                }
            };
            tokio::select! {
                () = shared.stop.cancelled() => {}
                () = serving => {}
            }
            drop(place);
        });
    }
}

fn failed(doing: &str, error: &Error) -> Ended {
    Ended::Failed(format!("{doing}: {}", error.chain()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_everywhere_is_reached_by_loopback() {
        let check = |address: &str, want: &str| assert_eq!(reachable(address.parse().unwrap()).to_string(), want);
        check("0.0.0.0:1", "127.0.0.1:1");
        check("[::]:2", "[::1]:2");
        check("10.0.0.1:3", "10.0.0.1:3");
    }
}
