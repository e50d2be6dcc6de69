//! The event exchange: what is published goes to everyone who subscribed to it, in one order for all.
//!
//! Nobody waits for a subscriber. Each has a queue with a limit in events and in bytes; when an event doesn't fit, the
//! subscriber gets what was queued and then one "resource exhausted" error that ends its stream: it has missed
//! something and knows it, and subscribes again. Nothing is kept for subscribers that come later.

mod exchange;
mod plugin;
mod queue;
mod validate;

pub use exchange::Exchange;
pub use plugin::Plugin;
pub use validate::Error;
