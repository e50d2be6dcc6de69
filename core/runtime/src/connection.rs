//! What is spoken on a shim's socket: ttrpc, or gRPC by shims that say so when they start. Both fail with the errors of
//! ttrpc, so that nobody above needs to know which it is.

use std::{
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use kevel_ttrpc::{CallOptions, Client, Code, Error, Status};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request,
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::{Channel, Endpoint, Uri},
};

use crate::Protocol;

/// The key of the metadata that names the namespace of a call over ttrpc.
const TTRPC_NAMESPACE: &str = "containerd-namespace-ttrpc";
/// The same over gRPC.
const GRPC_NAMESPACE: &str = "containerd-namespace";

/// A connection to a shim.
pub(crate) enum Connection {
    Ttrpc(Client),
    Grpc(Grpc),
}

/// A call of a method without streams.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    pub(crate) namespace: &'a str,
    /// No limit for what waits for a process to end.
    pub(crate) limit: Option<Duration>,
    /// Headers by which the shim goes on with the trace of the call.
    pub(crate) trace: &'a [(String, String)],
}

impl Connection {
    /// Speaks the protocol over a stream.
    pub(crate) fn over(protocol: Protocol, stream: UnixStream) -> Self {
        match protocol {
            Protocol::Ttrpc => Self::Ttrpc(Client::new(stream)),
            Protocol::Grpc => Self::Grpc(Grpc::over(stream)),
        }
    }

    pub(crate) async fn call<Req, Resp>(&self, call: Call<'_>, request: &Req) -> Result<Resp, Error>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        match self {
            Self::Ttrpc(client) => {
                let options = CallOptions { timeout: call.limit, ..CallOptions::default() };
                let options = options.with(TTRPC_NAMESPACE, call.namespace);
                let options = call.trace.iter().fold(options, |options, (key, value)| options.with(key, value));
                client.call(call.service, call.method, request, options).await
            }
            Self::Grpc(grpc) => grpc.call(call, request).await,
        }
    }

    /// Waits until the connection is lost.
    pub(crate) async fn closed(&self) {
        match self {
            Self::Ttrpc(client) => client.closed().await,
            Self::Grpc(grpc) => grpc.gone.cancelled().await,
        }
    }

    /// Whether the connection is lost.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Ttrpc(client) => client.is_closed(),
            Self::Grpc(grpc) => grpc.gone.is_cancelled(),
        }
    }

    /// Ends the connection, and the calls that wait for an answer.
    pub(crate) fn close(&self) {
        match self {
            Self::Ttrpc(client) => client.close(),
            Self::Grpc(grpc) => grpc.close(),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_closed() { "closed" } else { "open" })
    }
}

/// A gRPC connection over one stream, which is not made again when it breaks: a shim that is gone does not come back.
pub(crate) struct Grpc {
    channel: Mutex<Option<Channel>>,
    gone: CancellationToken,
}

impl Grpc {
    fn over(stream: UnixStream) -> Self {
        let gone = CancellationToken::new();
        let mut once = Some(TokioIo::new(Watched { stream, _gone: gone.clone().drop_guard() }));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = once.take();
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        // The address is a formality.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self { channel: Mutex::new(Some(channel)), gone }
    }

    async fn call<Req, Resp>(&self, call: Call<'_>, request: &Req) -> Result<Resp, Error>
    where
        Req: Message + Clone + 'static,
        Resp: Message + Default + 'static,
    {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let channel = channel.ok_or(Error::Closed(None))?;
        let answer = unary(channel, call, request.clone());
        let answer = async {
            match call.limit {
                Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                    let message = format!("no answer within {limit:?}");
                    Err(Status::new(Code::DeadlineExceeded, message).into())
                }),
                None => answer.await,
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.gone.cancelled() => Err(Error::Closed(None)),
        }
    }

    fn close(&self) {
        self.gone.cancel();
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

async fn unary<Req, Resp>(channel: Channel, call: Call<'_>, message: Req) -> Result<Resp, Error>
where
    Req: Message + 'static,
    Resp: Message + Default + 'static,
{
    let bad = |what: String| Error::from(Status::new(Code::Internal, what));
    let path = format!("/{}/{}", call.service, call.method);
    let path = path.parse().map_err(|error| bad(format!("path {path}: {error}")))?;
    let mut request = Request::new(message);
    let namespace = call.namespace.parse::<AsciiMetadataValue>();
    let namespace = namespace.map_err(|error| bad(format!("namespace {}: {error}", call.namespace)))?;
    request.metadata_mut().insert(GRPC_NAMESPACE, namespace);
    for (key, value) in call.trace {
        if let (Ok(key), Ok(value)) = (key.parse::<AsciiMetadataKey>(), value.parse()) {
            request.metadata_mut().insert(key, value);
        }
    }
    if let Some(limit) = call.limit {
        request.set_timeout(limit);
    }
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|_| Error::Closed(None))?;
    let answer = client.unary(request, path, tonic_prost::ProstCodec::default()).await;
    answer.map(tonic::Response::into_inner).map_err(failed)
}

/// What a call failed with. A status that the shim did not send has a cause: the connection broke.
fn failed(status: tonic::Status) -> Error {
    let broken = matches!(status.code(), tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Unavailable);
    if broken && std::error::Error::source(&status).is_some() {
        return Error::Closed(None);
    }
    Status::new(Code::from(i32::from(status.code())), status.message()).into()
}

/// A stream that tells when it is let go of, which happens when the other side closes it.
struct Watched {
    stream: UnixStream,
    _gone: DropGuard,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Answers with what it was told of a trace.
    struct Teller;

    #[async_trait::async_trait]
    impl kevel_ttrpc::Service for Teller {
        async fn call(&self, _: &str, _: Bytes, context: kevel_ttrpc::Context) -> Result<Bytes, Status> {
            let told = ["traceparent", "tracestate"].map(|key| context.metadata.get(key).unwrap_or("none").to_owned());
            Ok(told.join(" ").encode_to_vec().into())
        }
    }

    #[tokio::test]
    async fn a_shim_is_told_the_trace() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut server = kevel_ttrpc::Server::new();
        server.register("s", std::sync::Arc::new(Teller)).unwrap();
        tokio::spawn(async move { server.serve_connection(theirs, None, CancellationToken::new()).await });
        let connection = Connection::over(Protocol::Ttrpc, ours);
        let told = async |trace: &[(String, String)]| {
            let call = Call { service: "s", method: "m", namespace: "n", limit: None, trace };
            connection.call::<(), String>(call, &()).await.unwrap()
        };
        assert_eq!(told(&[]).await, "none none");
        let trace = [("traceparent", "00-a-b-01"), ("tracestate", "c=d")];
        assert_eq!(told(&trace.map(|(key, value)| (key.to_owned(), value.to_owned()))).await, "00-a-b-01 c=d");
    }
}
