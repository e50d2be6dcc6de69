//! Identifiers, names and times.

use std::{io::Read as _, time::SystemTime};

use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::{ContainerMetadata, PodSandboxMetadata};

/// A new identifier: 64 hexadecimal digits.
pub(crate) fn new_id() -> Result<String> {
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Error::io("reading random bytes for an identifier", error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The name under which a pod is reserved.
pub(crate) fn pod_name(metadata: &PodSandboxMetadata) -> String {
    format!("{}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt)
}

/// The name under which a container is reserved in its pod.
pub(crate) fn container_name(metadata: &ContainerMetadata) -> String {
    format!("{}_{}", metadata.name, metadata.attempt)
}

/// Nanoseconds since the epoch.
pub(crate) fn nanos(at: SystemTime) -> i64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Nanoseconds since the epoch, now.
pub(crate) fn now() -> i64 {
    nanos(SystemTime::now())
}
