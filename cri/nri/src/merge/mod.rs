//! From what each plugin wants to what all want: pure, in the order of the plugins, with a record of who set what, so
//! that two who set the same thing are found out.

mod adjust;
mod create;
mod owners;
mod resources;
#[cfg(test)]
mod tests;
mod update;

pub use create::{Created, Creation};
pub use owners::{Conflict, Owners};
pub use update::{Changed, Changes, Refused};

pub(crate) use resources::overlay;

/// The name of an entry, and whether its removal is asked for.
pub(crate) fn removal(name: &str) -> (&str, bool) {
    name.strip_prefix('-').map_or((name, false), |name| (name, true))
}

/// As [`removal`] reads it.
pub(crate) fn removed(name: &str) -> String {
    format!("-{name}")
}
