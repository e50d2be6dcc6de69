//! The rules of `google.protobuf.Any` as containerd's clients and shims expect them.
//!
//! Two kinds of payload share the field: protobuf messages, named by their full name *without* a
//! `type.googleapis.com/` prefix, and JSON documents, named by a path such as
//! `types.containerd.io/opencontainers/runtime-spec/1/Spec`. Written names are always exact. Read names of messages may
//! carry any prefix: what counts is the part after the last slash. Names of JSON documents contain slashes themselves
//! and count as a whole.

use bytes::Bytes;
use prost::{Message, Name};
use prost_types::Any;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An OCI runtime specification, as JSON.
pub const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// An OCI process, as JSON: what an exec runs.
pub const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// OCI Linux resources, as JSON: what a task update carries.
pub const LINUX_RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// OCI Windows resources, as JSON.
pub const WINDOWS_RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/WindowsResources";
/// What an OCI runtime says it can do, as JSON.
pub const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
/// The CRI record of a sandbox, as JSON in the sandbox's and its container's extensions.
pub const CRI_SANDBOX: &str = "github.com/containerd/cri/pkg/store/sandbox/Metadata";
/// The CRI record of a container, as JSON in the container's extensions.
pub const CRI_CONTAINER: &str = "github.com/containerd/cri/pkg/store/container/Metadata";
/// The resources that a sandbox was updated to by the CRI.
pub const CRI_UPDATED_RESOURCES: &str = "io.containerd.cri.v1/UpdatedResources";

/// Why the payload of an `Any` could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum AnyError {
    /// The payload is of another type.
    #[error("reading {wanted} from an any: it holds {found:?}")]
    Type {
        /// The type that was asked for.
        wanted: String,
        /// The type URL that was found.
        found: String,
    },
    /// The payload is not a valid message of its type.
    #[error("decoding {wanted} from an any")]
    Decode {
        /// The type that was asked for.
        wanted: String,
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
    /// The payload is not valid JSON of its type.
    #[error("decoding {wanted} from json in an any")]
    DecodeJson {
        /// The type that was asked for.
        wanted: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The value cannot be written as JSON.
    #[error("encoding {type_url} as json into an any")]
    EncodeJson {
        /// The type that was to be written.
        type_url: String,
        /// What the serializer said.
        #[source]
        source: serde_json::Error,
    },
}

/// Puts a message into an `Any` under its bare full name.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Whether `any` holds a message of type `M`; a prefix of the name does not matter.
pub fn is<M: Name>(any: &Any) -> bool {
    name(&any.type_url) == M::full_name()
}

/// Takes a message of type `M` out of an `Any`.
///
/// # Errors
/// [`AnyError::Type`] when it holds something else, [`AnyError::Decode`] when the bytes are not such a message.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, AnyError> {
    expect::<M>(any)?;
    M::decode(any.value.as_slice()).map_err(|source| AnyError::Decode { wanted: M::full_name(), source })
}

/// As [`unpack`], but takes the payload over: `bytes::Bytes` fields then share it instead of copying it.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_owned<M: Message + Name + Default>(any: Any) -> Result<M, AnyError> {
    expect::<M>(&any)?;
    M::decode(Bytes::from(any.value)).map_err(|source| AnyError::Decode { wanted: M::full_name(), source })
}

/// Puts a value into an `Any` as JSON, under one of this module's constants or a name of the caller's.
///
/// # Errors
/// [`AnyError::EncodeJson`] when the value has no JSON form, such as a map whose keys are not strings.
pub fn pack_json<T: Serialize + ?Sized>(type_url: &str, value: &T) -> Result<Any, AnyError> {
    let value =
        serde_json::to_vec(value).map_err(|source| AnyError::EncodeJson { type_url: type_url.to_owned(), source })?;
    Ok(Any { type_url: type_url.to_owned(), value })
}

/// Reads a JSON payload written under `type_url`.
///
/// # Errors
/// [`AnyError::Type`] when it holds something else, [`AnyError::DecodeJson`] when the bytes do not parse.
pub fn unpack_json<T: DeserializeOwned>(type_url: &str, any: &Any) -> Result<T, AnyError> {
    if any.type_url != type_url {
        return Err(AnyError::Type { wanted: type_url.to_owned(), found: any.type_url.clone() });
    }
    serde_json::from_slice(&any.value).map_err(|source| AnyError::DecodeJson { wanted: type_url.to_owned(), source })
}

/// The name in a type URL: what follows the last slash.
pub fn name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

fn expect<M: Name>(any: &Any) -> Result<(), AnyError> {
    if is::<M>(any) {
        return Ok(());
    }
    Err(AnyError::Type { wanted: M::full_name(), found: any.type_url.clone() })
}
