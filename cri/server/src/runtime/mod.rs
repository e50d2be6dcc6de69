//! RPCs about the runtime as a whole.

mod config;
mod features;
mod status;
mod update_config;
mod version;

pub(crate) use features::Features;
