//! What a service implements, and what it is told about a call.

use super::stream::ServerStream;
use crate::metadata::Metadata;
use crate::status::Status;
use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

/// A service: methods by name, messages as bytes ([`decode`], [`encode`] and [`unary`] turn them into types).
///
/// Each call runs in a task of its own. Its future **is dropped at whatever await it is** when its deadline passes, the
/// connection is lost, or a shutdown has waited long enough; work that must not be cut halfway belongs in a task that
/// the service spawns and awaits. A panic is answered `Internal` and stays within the call.
#[async_trait::async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers a unary call. A method that does not exist is [`Status::unimplemented`], with its name.
    async fn call(&self, method: &str, payload: Bytes, context: Context) -> Result<Bytes, Status>;

    /// Serves a stream, in either direction or both. Without streaming methods, leave it out.
    async fn stream(&self, method: &str, stream: ServerStream, context: Context) -> Result<Ending, Status> {
        let _ = (stream, context);
        Err(Status::unimplemented(format!("streaming method {method}")))
    }
}

/// How a stream ends well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing more comes: methods with a stream of answers.
    Closed,
    /// The one answer: methods in which only the client streams.
    Answer(Bytes),
}

/// What a handler is told beside the message.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The metadata of the request.
    pub metadata: Metadata,
    /// When the caller stops waiting. The handler is dropped then.
    pub deadline: Option<Instant>,
    /// Who is at the other end, when it is a Unix socket.
    pub peer: Option<Peer>,
}

/// The credentials of a peer when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id, in our pid namespace.
    pub pid: Option<i32>,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Decodes a request message.
///
/// # Errors
///
/// `InvalidArgument` when the bytes are not that message.
pub fn decode<M: Message + Default>(payload: Bytes) -> Result<M, Status> {
    M::decode(payload).map_err(|error| Status::invalid(format!("decode request message: {error}")))
}

/// Encodes an answer.
pub fn encode<M: Message>(message: &M) -> Bytes {
    message.encode_to_vec().into()
}

/// Runs a handler with typed messages on encoded ones.
///
/// # Errors
///
/// As [`decode`], or what the handler fails with.
pub async fn unary<Req, Resp, Reply>(payload: Bytes, handler: impl FnOnce(Req) -> Reply) -> Result<Bytes, Status>
where
    Req: Message + Default,
    Resp: Message,
    Reply: Future<Output = Result<Resp, Status>>,
{
    Ok(encode(&handler(decode(payload)?).await?))
}
