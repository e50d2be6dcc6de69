//! The client's end of named streams: registered here, taken by a service behind the socket.

use kevel_contract::{Scope, stream::Stream};
use kevel_model::{Error, Result};
use kevel_proto::{
    any,
    containerd::services::streaming::v1::{StreamInit, streaming_client::StreamingClient},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{any_read, any_wire, error::error, need_text},
    remote::{answer, client, request},
};

/// Messages that wait in either direction.
const PENDING: usize = 16;

/// Opens a stream under `id` at the backend; whoever takes it there is at the other end. The handle's deadline is for
/// the opening only.
pub async fn open(remote: &Remote, scope: &Scope, id: &str) -> Result<Stream> {
    need_text("id", id)?;
    remote.target().call("stream", connect(remote, scope, id)).await
}

async fn connect(remote: &Remote, scope: &Scope, id: &str) -> Result<Stream> {
    let (here, mut there) = Stream::pair(PENDING);
    let (messages, stream) = mpsc::channel(PENDING);
    let init = any::pack(&StreamInit { id: id.to_owned() });
    messages.try_send(init).map_err(|_| Error::internal("opening a stream: the queue is full"))?;
    let outbound = request(scope, ReceiverStream::new(stream))?;
    let mut answers = answer(client!(StreamingClient<Channel>, remote).stream(outbound).await)?;
    let ack = answers.message().await.map_err(error)?;
    ack.ok_or_else(|| Error::unavailable(format!("stream {id:?} was closed before it was acknowledged")))?;
    tokio::spawn(async move {
        while let Some(message) = there.rx.recv().await {
            if messages.send(any_wire(message)).await.is_err() {
                return;
            }
        }
    });
    let inbound = there.tx;
    tokio::spawn(async move {
        while let Some(Ok(message)) = answers.next().await {
            if inbound.send(any_read(message)).await.is_err() {
                return;
            }
        }
    });
    Ok(here)
}
