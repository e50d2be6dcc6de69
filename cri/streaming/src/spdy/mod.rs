//! SPDY/3.1, the server's side, as Kubernetes' clients speak it: streams that the client opens, data both ways, half
//! closes and resets. `frame`, `headers` and `dictionary` are the bytes and know no I/O; `connection` is what happens;
//! `window` is how much may be sent.
//!
//! The clients' common implementation knows no flow control: it neither sends windows nor looks at them, and a slow
//! client is held back by TCP alone. So a window counts only from the moment on at which a peer shows that it keeps
//! one. Windows for the peer are sent always, and one that overruns them is read no faster than its data is used.

mod connection;
mod dictionary;
mod fault;
mod frame;
mod headers;
mod stream;
mod window;

pub(crate) use self::{
    connection::{Connection, serve},
    stream::{Credit, Incoming, Stream},
};
pub use self::{
    fault::Fault,
    frame::{Decoder, Encoder, Frame, INITIAL_WINDOW_SIZE, MAX_CONTROL, MAX_PIECE, Setting, away, reset},
    headers::{Headers, MAX_BLOCK},
};
