//! The other end of `kevel-service`: contract handles to services behind a Unix socket, and the proxy plugins of the
//! configuration, which are such handles.
//!
//! A handle from here is used like any other; that it is remote shows in its deadline only. Nothing here serves.

pub mod convert;
