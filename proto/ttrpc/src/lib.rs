//! ttrpc: the small request protocol between the daemon and its shims, over prost messages and tokio.
//!
//! Here live the frames ([`frame`]), the envelope messages ([`message`]), the [`Client`] and the [`Server`]. Both ends
//! run over any `AsyncRead + AsyncWrite`, on a multi-threaded or a current-thread runtime, and keep no buffer larger
//! than a kilobyte while a connection is idle. What does not live here: any service, any generated message, the
//! address schemes of shims (`unix://`, `vsock://`), reconnecting.
//!
//! # How a connection is kept in bounds
//!
//! ttrpc has no flow control of its own, so each end sets limits ([`Limits`], [`server::Server::max_calls`]):
//!
//! - **Writing.** Frames wait in one queue per connection, bounded in bytes. Whoever wants to send waits for room; a
//!   peer that does not read therefore stops its own callers and handlers, and costs no more than the queue.
//! - **Streams.** Messages of one stream wait in a queue of its own, bounded in bytes. When it is full the connection
//!   stops reading, which is what slows the sender down; other calls on that connection wait too. If the consumer
//!   makes no room within [`Limits::stall`], only its stream ends, with `ResourceExhausted`, and reading goes on.
//! - **Calls.** A call above the bound is answered `ResourceExhausted` at once. It is not held back, because running
//!   calls may be waits that end only when a later call (a kill) gets through.
//! - **Messages.** At most [`frame::MAX_MESSAGE`] bytes; a larger one is refused before it is sent.

pub mod client;
pub mod error;
pub mod frame;
pub mod limits;
pub mod message;
pub mod metadata;
pub mod server;
pub mod status;

mod queue;
mod reader;
mod writer;

pub use client::{CallOptions, Client};
pub use error::Error;
pub use limits::Limits;
pub use metadata::Metadata;
pub use server::{Context, Ending, Server, ServerStream, Service};
pub use status::{Code, Status};
