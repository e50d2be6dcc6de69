//! Streams by name, over which clients and services exchange typed messages.

use async_trait::async_trait;
use kevel_model::{Any, Result};
use kevel_plugin::Kind;
use tokio::sync::mpsc;

use crate::{Scope, call::handle};

/// The stream manager: `io.containerd.streaming.v1.manager`.
pub enum Streams {}

impl Kind for Streams {
    const TYPE: &'static str = "io.containerd.streaming.v1";
    type Handle = StreamManager;
}

/// One end of a stream: bounded both ways. Dropping an end closes it.
#[derive(Debug)]
pub struct Stream {
    /// To the other end.
    pub tx: mpsc::Sender<Any>,
    /// From the other end.
    pub rx: mpsc::Receiver<Any>,
}

impl Stream {
    /// Both ends of a new stream.
    pub fn pair(capacity: usize) -> (Self, Self) {
        let (here_tx, there_rx) = mpsc::channel(capacity);
        let (there_tx, here_rx) = mpsc::channel(capacity);
        (Self { tx: here_tx, rx: here_rx }, Self { tx: there_tx, rx: there_rx })
    }
}

/// A stream manager, for whoever writes one. A client registers a stream under an id; a service takes it once, waiting
/// a moment for one that is not there yet.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Registers the client's stream; "already exists" while one of that id waits or runs.
    async fn register(&self, scope: &Scope, id: &str, stream: Stream) -> Result<()>;
    /// Takes the stream of that id.
    async fn take(&self, scope: &Scope, id: &str) -> Result<Stream>;
}

handle! {
    /// A stream manager, for whoever uses one.
    StreamManager over Backend {
        /// Registers the client's stream.
        fn register(scope: &Scope, id: &str, stream: Stream) -> ();
        /// Takes the stream of that id.
        fn take(scope: &Scope, id: &str) -> Stream;
    }
}
