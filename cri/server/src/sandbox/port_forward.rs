//! PortForward: a URL for a pod's ports, and later a connection for each that the client makes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use kevel_cri_network::Netns;
use kevel_cri_streaming::{Input, Output, PortForward, Tunnel};
use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::{PortForwardRequest, PortForwardResponse};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};

use crate::{files::blocking, index::Pod, server::Server};

/// How long the pod may take to accept a connection on its own loopback.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long the client may go on sending to a pod that has said all.
const LINGER: Duration = Duration::from_secs(10);
/// What is read from the pod at once.
const CHUNK: usize = 32 << 10;

impl Server {
    /// A URL under which a pod's ports will be, once.
    pub(crate) fn port_forward(&self, request: PortForwardRequest) -> Result<PortForwardResponse> {
        let mut forward = PortForward::new(request.pod_sandbox_id, &request.port)?;
        forward.pod_id.clone_from(&self.reachable_pod(&forward.pod_id)?.record.id);
        Ok(PortForwardResponse { url: self.streaming.port_forward(forward)? })
    }

    /// Connects a client to a port on a pod's loopback.
    pub(crate) async fn run_port_forward(&self, pod_id: &str, port: u16, tunnel: Tunnel) -> Result<()> {
        let pod = self.reachable_pod(pod_id)?;
        let connected = if pod.record.host_network() {
            blocking(move || Ok(connect(port))).await?
        } else {
            let doing = || format!("entering the network of pod {}", pod.record.id);
            let failed = |error| Error::failed_precondition(doing()).with_source(error);
            Netns::open(&pod.record.netns).map_err(failed)?.run(move || connect(port)).await.map_err(failed)?
        };
        let socket = connected.and_then(|socket| {
            socket.set_nonblocking(true)?;
            tokio::net::TcpStream::from_std(socket)
        });
        let failed = |error| Error::io(format!("connecting to port {port} of pod {}", pod.record.id), error);
        // A pod that breaks an open connection off is no failure to tell: clients take one for the end of everything.
        copy(socket.map_err(failed)?, tunnel).await;
        Ok(())
    }

    fn reachable_pod(&self, id: &str) -> Result<Arc<Pod>> {
        let pod = self.index.pod(id)?;
        if !pod.ready {
            return Err(Error::failed_precondition(format!("pod sandbox {} is not running", pod.record.id)));
        }
        Ok(pod)
    }
}

/// Connects to this thread's loopback, the one of IPv4 first. Blocks. The error is that of IPv4.
fn connect(port: u16) -> io::Result<TcpStream> {
    let to = |ip: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(ip, port), CONNECTING);
    let socket = to(Ipv4Addr::LOCALHOST.into()).or_else(|error| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Copies both ways, with half-closes, until the pod has said all or the client is gone.
async fn copy(socket: tokio::net::TcpStream, tunnel: Tunnel) {
    let Tunnel { input, output, gone } = tunnel;
    let (from, to) = socket.into_split();
    let both = async {
        let (sending, receiving) = (send(input, to), receive(from, output));
        tokio::pin!(sending, receiving);
        tokio::select! {
            () = &mut sending => receiving.await,
            () = &mut receiving => drop(tokio::time::timeout(LINGER, sending).await),
        }
    };
    tokio::select! {
        () = both => {}
        () = gone.cancelled() => {}
    }
}

async fn send(mut input: Input, mut to: OwnedWriteHalf) {
    while let Some(piece) = input.next().await {
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    // Nothing more will come: the pod may answer still.
    let _ = to.shutdown().await;
}

async fn receive(mut from: OwnedReadHalf, mut output: Output) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(_) => {}
            // Without a close the stream is reset, and the client sees a broken connection too.
            Err(error) => return tracing::debug!(%error, "reading from a pod"),
        }
        if output.send(buffer.split().freeze()).await.is_err() {
            return;
        }
    }
    let _ = output.close().await;
}
