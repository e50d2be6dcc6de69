//! Streaming.Stream: the first message names the stream and is answered with an empty one; what follows is the
//! stream's. Either end closes its direction by ending its messages.

use futures::{StreamExt as _, stream as streams};
use kevel_client::convert::{any_read, any_wire, error::error, need_text};
use kevel_contract::{
    Scope,
    stream::{Stream, StreamManager},
};
use kevel_model::{Any, Error, Result};
use kevel_proto::containerd::services::streaming::v1::StreamInit;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::call::Items;

/// Messages that wait in either direction.
const PENDING: usize = 16;
/// The type of the answer to the first message.
const EMPTY: &str = "google.protobuf.Empty";

pub(super) async fn stream(
    manager: StreamManager,
    scope: Scope,
    mut messages: Streaming<prost_types::Any>,
) -> Result<Items<prost_types::Any>> {
    let first = messages.message().await.map_err(error)?;
    let first = first.ok_or_else(|| Error::invalid_argument("stream ended before it was named"))?;
    let init: StreamInit = kevel_proto::any::unpack(&first)
        .map_err(|cause| Error::invalid_argument("first message of the stream").with_source(cause))?;
    need_text("id", &init.id)?;
    let (ours, theirs) = Stream::pair(PENDING);
    manager.register(&scope, &init.id, theirs).await?;
    tokio::spawn(feed(messages, ours.tx));
    let ack = prost_types::Any { type_url: EMPTY.to_owned(), value: Vec::new() };
    let answers = ReceiverStream::new(ours.rx).map(|message| Ok(any_wire(message)));
    Ok(streams::iter([Ok(ack)]).chain(answers).boxed())
}

/// Carries the client's messages to the service that took the stream, until either has enough.
async fn feed(mut messages: Streaming<prost_types::Any>, service: mpsc::Sender<Any>) {
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = service.closed() => return,
        };
        match message {
            Ok(Some(message)) => {
                if service.send(any_read(message)).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(%status, "stream broke off");
                return;
            }
        }
    }
}
