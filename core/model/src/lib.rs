//! The nouns of a container runtime: digests, references, platforms, labels, filters, mounts and errors.
//!
//! Values only. Nothing here does I/O, knows a wire format or is async; every other crate may depend on this one and
//! this one depends on none of them.

mod any;
mod descriptor;
mod digest;
pub mod duration;
mod error;
pub mod filter;
mod labels;
mod mount;
mod name;
mod platform;
mod reference;

pub use any::Any;
pub use descriptor::{Descriptor, media_type};
pub use digest::{Digest, DigestError, Hasher};
pub use error::{Code, Context, Error, Result};
pub use filter::{Adaptor, Filter, Filters};
pub use labels::{Labels, LabelsError, apply_label_fieldpaths, check_labels};
pub use mount::Mount;
pub use name::{NameError, Namespace, check_identifier};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
