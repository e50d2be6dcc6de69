//! What is kept on disk, as JSON: a sandbox's record in the sandbox store, a container's record in the container
//! store, and a container's state in a file of its own, because that changes often.
//!
//! Requests are kept as the protobuf messages that they were, in base64, so that no field is ever lost.

mod container;
mod message;
mod sandbox;
mod state;

pub(crate) use container::{ContainerRecord, Volume};
pub(crate) use message::Stored;
pub(crate) use sandbox::{Phase, SandboxRecord};
pub(crate) use state::{ContainerState, read_state, write_state};

use kevel_model::{Any, Error, Result};
use serde::{Serialize, de::DeserializeOwned};

/// The name of the extension that holds a record.
pub(crate) const EXTENSION: &str = "io.cri-containerd.record";
/// The label that says which kind of object it is.
pub(crate) const KIND: &str = "io.cri-containerd.kind";
/// The value of [`KIND`] for sandboxes.
pub(crate) const SANDBOX: &str = "sandbox";
/// The value of [`KIND`] for containers.
pub(crate) const CONTAINER: &str = "container";

fn pack<T: Serialize>(type_url: &str, record: &T) -> Result<Any> {
    let value =
        serde_json::to_vec(record).map_err(|error| Error::internal("writing a CRI record").with_source(error))?;
    Ok(Any::new(type_url, value))
}

fn unpack<T: DeserializeOwned>(type_url: &str, any: &Any) -> Result<T> {
    if any.type_url != type_url {
        return Err(Error::data_loss(format!("CRI record is of type {:?}, not {type_url:?}", any.type_url)));
    }
    serde_json::from_slice(&any.value).map_err(|error| Error::data_loss("reading a CRI record").with_source(error))
}
