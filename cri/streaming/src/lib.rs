//! Exec, Attach and PortForward on the wire: CRI answers a URL, the client comes there over HTTP and asks for SPDY/3.1
//! or a WebSocket, and its streams are handed to whoever runs containers.
//!
//! The way of a request: [`Endpoint::exec`] and its sisters check it and give it a token; `server` takes the token
//! back from the client that has it; `upgrade` agrees on a protocol; `command` and `forward` open the streams and hand
//! them to the [`Runtime`]; `spdy` and `websocket` carry them. [`Input`] and [`Output`] are the same over both.
//!
//! Everything is bounded: tokens, connections, streams, header blocks, messages, and bytes that wait on either side.
//! Not here: containers, pods and their network namespaces, which are the runtime's.

mod command;
mod config;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod idle;
mod request;
mod runtime;
mod server;
mod session;
pub mod spdy;
mod tls;
mod token;
mod upgrade;
mod websocket;

pub use self::{
    config::{Config, KeyPair},
    request::{Attach, Exec, PortForward, Streams},
    runtime::Runtime,
    server::{Endpoint, Listener},
    session::{Gone, Input, Output, Session, Size, Tunnel},
};
