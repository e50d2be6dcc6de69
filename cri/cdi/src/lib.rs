//! The Container Device Interface: devices that vendors describe in files on the node, put into an OCI runtime spec.
//!
//! A part of version 1.1 of CDI's specification, and all that a runtime needs of it: reading specs in JSON and YAML,
//! finding qualified devices in them, and injecting what they say. Writing specs, watching directories and caching are
//! not here: specs are read when a container asks for a device, so that what a vendor changed counts at once.
//!
//! * [`requested`] finds the devices of a request, [`Registry::read`] what the node has;
//! * [`Registry::inject`] changes a runtime spec. Reading files and looking at device nodes is all the I/O; it blocks.

mod annotation;
mod document;
mod edit;
mod error;
mod name;
mod registry;

pub use self::{annotation::requested, error::Error, error::Result, name::Device, registry::Registry};
