//! The garbage collector: what is kept, how the rest goes, and when.
//!
//! - [`label`]: the labels by which objects refer to each other and ask to stay.
//! - [`mark`]: from one state to what is alive in it. Pure.
//! - [`collect`]: removes the records of the rest in one change, then what the backends have without a record.

mod collect;
pub(crate) mod label;
mod mark;
mod scheduler;

pub(crate) use collect::Collector;
pub use scheduler::{Config as SchedulerConfig, Scheduler};

#[cfg(test)]
mod tests;
