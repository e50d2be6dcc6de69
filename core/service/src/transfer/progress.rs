//! Telling the client how a transfer goes, over the stream that it named.

use std::time::Duration;

use kevel_client::convert::{any_read, signed, types};
use kevel_contract::{Scope, stream::Stream, transfer::Progress};
use kevel_model::{Any, Result};
use kevel_proto::{any, containerd::types::transfer as proto};
use tokio::{sync::mpsc, task::JoinHandle};

use super::Transfer;

/// News that wait for the client; a transfer drops what finds no room.
const PENDING: usize = 64;
/// How long the last news may take to reach the client.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells a client how its transfer goes, if it wants to know.
pub(super) struct Reporter {
    teller: Option<(mpsc::Sender<Progress>, JoinHandle<()>)>,
}

impl Reporter {
    /// A reporter over a stream, or one that reports nothing for an empty name.
    pub(super) async fn open(service: &Transfer, scope: &Scope, stream: &str) -> Result<Self> {
        if stream.is_empty() {
            return Ok(Self { teller: None });
        }
        let stream = service.streams.take(scope, stream).await?;
        let (sender, news) = mpsc::channel(PENDING);
        Ok(Self { teller: Some((sender, tokio::spawn(tell(news, stream)))) })
    }

    /// Where the transfer tells how it goes.
    pub(super) fn sender(&self) -> Option<mpsc::Sender<Progress>> {
        self.teller.as_ref().map(|(sender, _)| sender.clone())
    }

    /// Lets the last news out.
    pub(super) async fn finish(self) {
        let Some((sender, mut task)) = self.teller else { return };
        drop(sender);
        if tokio::time::timeout(PATIENCE, &mut task).await.is_err() {
            task.abort();
        }
    }
}

async fn tell(mut news: mpsc::Receiver<Progress>, stream: Stream) {
    while let Some(progress) = news.recv().await {
        if stream.tx.send(wire(progress)).await.is_err() {
            return;
        }
    }
}

fn wire(progress: Progress) -> Any {
    any_read(any::pack(&proto::Progress {
        event: progress.event,
        name: progress.name,
        parents: progress.parents,
        progress: signed(progress.progress),
        total: signed(progress.total),
        desc: progress.descriptor.map(types::descriptor_wire),
    }))
}
