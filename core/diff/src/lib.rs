//! Layers: applying them to a directory, and making them from two directories.
//!
//! [`apply`] is the hardened tar applier, [`layer`] puts decompression and hashing in front of it, [`create`] is the
//! way back, [`tar`] is the format, [`processor`] runs the programs that turn other layers into archives. [`walking`] offers all of it as the differ plugin `io.containerd.differ.v1.walking`.
//! Fetching and storing layers is not done here, and neither is choosing what to mount.

pub mod apply;
pub mod create;
mod error;
pub mod layer;
pub mod processor;
pub mod tar;
pub mod walking;
mod xattr;

pub use apply::{Applied, Form, Options, apply};
pub use error::Error;
pub use layer::{Layer, apply_layer};
pub use processor::{Processors, StreamProcessors};
