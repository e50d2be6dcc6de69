//! Standard streams of containers: the named pipes to the shim, the CRI log that kubelet reads, attached clients, and
//! what a command printed.
//!
//! The way of a byte: the shim writes into a pipe of [`Fifos`]; a task of [`Io`] has a [`Sink`] read it;
//! the sink cuts lines and appends them to the [`Log`], and copies the bytes to every [`Attachment`]. Nothing on that
//! way lets a container wait for a disk that is full, and a client that does not read is dropped after a while. A daemon
//! that is killed leaves what it has read and not logged to the next one: no byte is lost or logged twice.
//!
//! Order of calls for a container: [`Fifos::create`], [`Log::open`], [`Io::start`], create the task,
//! [`Io::connected`], start the task, ... the task ends, [`Io::drained`], [`Fifos::remove`]. After a restart of the
//! daemon: [`Fifos::at`], [`Log::open`], [`Io::start`], [`Io::connected`].

mod attach;
mod capture;
mod error;
mod fifo;
mod file;
mod io;
mod line;
mod log;
mod mark;
mod sink;
mod spool;
mod time;

#[doc(hidden)]
pub mod fuzzing;

pub use self::{
    attach::{Attachment, Chunk},
    capture::{CAPTURE_LIMIT, Captured, capture},
    error::{Error, Result},
    fifo::{Fifos, Keepers, Pipes},
    io::Io,
    line::Stream,
    log::{Log, Stats},
    sink::{Settings, Sink},
};
