//! Blobs and ingests.

use kevel_contract::content::{Info, Status};
use kevel_model::{Digest, Error, Result};
use kevel_proto::containerd::services::content::v1 as proto;

use super::{need, signed, time_read, time_wire, unsigned};

/// A digest that must be there.
pub fn digest(field: &str, text: &str) -> Result<Digest> {
    text.parse().map_err(|error| Error::from(error).context(field))
}

/// A digest that may be empty.
pub fn optional_digest(field: &str, text: &str) -> Result<Option<Digest>> {
    if text.is_empty() { Ok(None) } else { digest(field, text).map(Some) }
}

/// A blob for the wire.
pub fn wire(info: Info) -> proto::Info {
    proto::Info {
        digest: info.digest.to_string(),
        size: signed(info.size),
        created_at: time_wire(info.created_at),
        updated_at: time_wire(info.updated_at),
        labels: info.labels,
    }
}

/// A blob from the wire.
pub fn read(info: Option<proto::Info>) -> Result<Info> {
    let info = need("info", info)?;
    Ok(Info {
        digest: digest("info.digest", &info.digest)?,
        size: unsigned("info.size", info.size)?,
        created_at: time_read("info.created_at", info.created_at)?,
        updated_at: time_read("info.updated_at", info.updated_at)?,
        labels: info.labels,
    })
}

/// An ingest for the wire.
pub fn status_wire(status: Status) -> proto::Status {
    proto::Status {
        started_at: time_wire(status.started_at),
        updated_at: time_wire(status.updated_at),
        r#ref: status.reference,
        offset: signed(status.offset),
        total: signed(status.total),
        expected: status.expected.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}

/// An ingest from the wire.
pub fn status_read(status: Option<proto::Status>) -> Result<Status> {
    let status = need("status", status)?;
    Ok(Status {
        reference: status.r#ref,
        offset: unsigned("status.offset", status.offset)?,
        total: unsigned("status.total", status.total)?,
        expected: optional_digest("status.expected", &status.expected)?,
        started_at: time_read("status.started_at", status.started_at)?,
        updated_at: time_read("status.updated_at", status.updated_at)?,
    })
}
