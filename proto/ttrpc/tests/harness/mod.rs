//! The service that every test talks to, and the ways to reach it. The foreign peers serve the same one.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod calls;
pub mod peer;

use bytes::Bytes;
use kevel_ttrpc::server::{decode, encode, unary};
use kevel_ttrpc::{Client, Code, Context, Ending, Limits, Server, ServerStream, Service, Status};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const SERVICE: &str = "kevel.test.Echo";

/// On the wire `google.protobuf.StringValue`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    pub value: String,
}

/// On the wire `google.protobuf.BytesValue`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Blob {
    #[prost(bytes = "vec", tag = "1")]
    pub value: Vec<u8>,
}

/// On the wire `google.protobuf.UInt64Value`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Number {
    #[prost(uint64, tag = "1")]
    pub value: u64,
}

pub fn text(value: &str) -> Text {
    Text { value: value.into() }
}

pub fn number(value: u64) -> Number {
    Number { value }
}

pub fn blob(length: usize) -> Blob {
    Blob { value: vec![0x5a; length] }
}

/// The service under test.
#[derive(Default)]
pub struct Echo {
    /// `Hang` calls and `Deaf` streams that run now.
    pub hanging: Arc<AtomicUsize>,
    /// Opened by tests for calls of `Gate`.
    pub gate: Arc<tokio::sync::Notify>,
    /// Calls of `Gate` that run now.
    pub gated: Arc<AtomicUsize>,
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Service for Echo {
    async fn call(&self, method: &str, payload: Bytes, context: Context) -> Result<Bytes, Status> {
        match method {
            "Echo" => unary(payload, async |blob: Blob| Ok(blob)).await,
            "Fail" => {
                unary(payload, async |text: Text| -> Result<Text, _> { Err(Status::new(Code::NotFound, text.value)) })
                    .await
            }
            "Meta" => {
                unary(payload, async |key: Text| Ok(text(context.metadata.get(&key.value).unwrap_or("absent")))).await
            }
            "HasDeadline" => Ok(encode(&text(if context.deadline.is_some() { "yes" } else { "no" }))),
            "Hang" => {
                let _running = Counted::new(&self.hanging);
                std::future::pending().await
            }
            "Gate" => {
                let _running = Counted::new(&self.gated);
                self.gate.notified().await;
                Ok(payload)
            }
            "Grow" => unary(payload, async |length: Number| Ok(blob(length.value as usize))).await,
            "Panic" => panic!("asked to"),
            other => Err(Status::unimplemented(format!("method {other}"))),
        }
    }

    async fn stream(&self, method: &str, mut stream: ServerStream, context: Context) -> Result<Ending, Status> {
        match method {
            "Count" => {
                let upto: Number = stream.recv().await?.ok_or_else(|| Status::invalid("no request"))?;
                for value in 1..=upto.value {
                    stream.send(&number(value)).await?;
                }
                Ok(Ending::Closed)
            }
            "Sum" => {
                let mut sum = 0;
                while let Some(Number { value }) = stream.recv().await? {
                    sum += value;
                }
                Ok(Ending::Answer(encode(&number(sum))))
            }
            "Chat" => {
                while let Some(line) = stream.recv::<Text>().await? {
                    if line.value == "quit" {
                        return Err(Status::new(Code::Aborted, "told to quit"));
                    }
                    stream.send(&text(&line.value.to_uppercase())).await?;
                }
                Ok(Ending::Closed)
            }
            "Flood" => loop {
                stream.send(&blob(64 * 1024)).await?;
            },
            "Deaf" => {
                let _running = Counted::new(&self.hanging);
                std::future::pending().await
            }
            "Panic" => panic!("asked to, {}", context.metadata.is_empty()),
            other => Err(Status::unimplemented(format!("streaming method {other}"))),
        }
    }
}

/// A server of [`Echo`] with the bounds that a test wants.
pub struct Site {
    pub server: Server,
    pub hanging: Arc<AtomicUsize>,
    pub gate: Arc<tokio::sync::Notify>,
    pub gated: Arc<AtomicUsize>,
    pub shutdown: CancellationToken,
}

impl Site {
    pub fn new() -> Self {
        Self::with(|server| server)
    }

    pub fn with(change: impl FnOnce(Server) -> Server) -> Self {
        let echo = Echo::default();
        let (hanging, gate, gated) = (echo.hanging.clone(), echo.gate.clone(), echo.gated.clone());
        let mut server = change(Server::new());
        server.register(SERVICE, Arc::new(echo)).expect("the first service");
        Self { server, hanging, gate, gated, shutdown: CancellationToken::new() }
    }

    /// Serves one in-memory connection; the other end is returned.
    pub fn connection(&self, size: usize) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(size);
        let (server, shutdown) = (self.server.clone(), self.shutdown.clone());
        let serving = tokio::spawn(async move { server.serve_connection(far, None, shutdown).await });
        (near, serving)
    }

    pub fn client(&self) -> Client {
        Client::new(self.connection(64 * 1024).0)
    }

    pub fn client_with(&self, limits: Limits) -> Client {
        Client::with_limits(self.connection(64 * 1024).0, limits)
    }
}

/// Waits until a counter has a value.
pub async fn reaches(counter: &AtomicUsize, value: usize) {
    let wait = async {
        while counter.load(Ordering::SeqCst) != value {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    waited.unwrap_or_else(|_| panic!("stays at {}, not {value}", counter.load(Ordering::SeqCst)));
}

/// The stream ends without an error.
pub async fn reaches_end(stream: &mut kevel_ttrpc::client::Stream) {
    assert_eq!(soon(stream.recv::<Text>()).await.unwrap(), None);
}

/// A test must not hang: a deadlock is a failure.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("done within half a minute")
}

/// Decodes what a raw call gave.
pub fn decoded<M: Message + Default>(bytes: Bytes) -> M {
    decode(bytes).expect("a message")
}
