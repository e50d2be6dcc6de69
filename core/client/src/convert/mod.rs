//! Protobuf to contract types and back, for both ends of the socket: what this crate writes, `kevel-service` reads.
//!
//! In each module `wire` makes a message and `read` takes one apart, refusing what is malformed with the name of the
//! field. Nothing here does I/O.

pub mod container;
pub mod content;
pub mod error;
pub mod event;
pub mod image;
pub mod introspection;
pub mod lease;
pub mod mounts;
pub mod sandbox;
pub mod scope;
pub mod snapshot;
pub mod task;
pub mod types;

use std::{collections::BTreeMap, ops::RangeInclusive, time::SystemTime};

use kevel_model::{Any, Error, Result};
use prost_types::{FieldMask, Timestamp};

/// A field that must be there.
pub fn need<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::invalid_argument(format!("{field} is required")))
}

/// A text that must not be empty.
pub fn need_text(field: &str, value: &str) -> Result<()> {
    if value.is_empty() { Err(Error::invalid_argument(format!("{field} must not be empty"))) } else { Ok(()) }
}

/// A size or offset, which the wire has as a signed number.
pub fn unsigned(field: &str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::invalid_argument(format!("{field} must not be negative, is {value}")))
}

/// A size or offset for the wire; what no file system can hold is cut off.
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A typed blob for the wire.
pub fn any_wire(any: Any) -> prost_types::Any {
    prost_types::Any { type_url: any.type_url, value: any.value }
}

/// A typed blob from the wire.
pub fn any_read(any: prost_types::Any) -> Any {
    Any { type_url: any.type_url, value: any.value }
}

/// Named blobs for the wire.
pub fn anys_wire(anys: BTreeMap<String, Any>) -> BTreeMap<String, prost_types::Any> {
    anys.into_iter().map(|(name, any)| (name, any_wire(any))).collect()
}

/// Named blobs from the wire.
pub fn anys_read(anys: BTreeMap<String, prost_types::Any>) -> BTreeMap<String, Any> {
    anys.into_iter().map(|(name, any)| (name, any_read(any))).collect()
}

/// A moment for the wire.
pub fn time_wire(time: SystemTime) -> Option<Timestamp> {
    Some(time.into())
}

/// A moment from the wire; the epoch when there is none.
pub fn time_read(field: &str, time: Option<Timestamp>) -> Result<SystemTime> {
    Ok(optional_time_read(field, time)?.unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Seconds of the years 1 to 9999, the moments that protobuf can name.
const SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A moment from the wire, if there is one.
pub fn optional_time_read(field: &str, time: Option<Timestamp>) -> Result<Option<SystemTime>> {
    let Some(time) = time else { return Ok(None) };
    let Timestamp { seconds, nanos } = time;
    let valid = SECONDS.contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    let read = valid.then(|| SystemTime::try_from(time).ok()).flatten();
    read.map(Some).ok_or_else(|| Error::invalid_argument(format!("{field} is no moment: {seconds} s and {nanos} ns")))
}

/// The paths of a field mask; none for no mask.
pub fn paths(mask: Option<FieldMask>) -> Vec<String> {
    mask.map(|mask| mask.paths).unwrap_or_default()
}

/// A field mask of paths; none for none.
pub fn mask(paths: &[String]) -> Option<FieldMask> {
    (!paths.is_empty()).then(|| FieldMask { paths: paths.to_vec() })
}
