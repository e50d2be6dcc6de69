//! Snapshots.

use kevel_contract::snapshot::{Info, Kind};
use kevel_model::{Error, Result};
use kevel_proto::containerd::services::snapshots::v1 as proto;

use super::{need, time_read, time_wire};

/// For the wire.
pub fn wire(info: Info) -> proto::Info {
    let kind = match info.kind {
        Kind::View => proto::Kind::View,
        Kind::Active => proto::Kind::Active,
        Kind::Committed => proto::Kind::Committed,
    };
    proto::Info {
        name: info.name,
        parent: info.parent,
        kind: kind.into(),
        created_at: time_wire(info.created_at),
        updated_at: time_wire(info.updated_at),
        labels: info.labels,
    }
}

/// From the wire; a kind that is not known (as in an update, which names none) is taken for an active snapshot when
/// `lenient`.
pub fn read(info: Option<proto::Info>, lenient: bool) -> Result<Info> {
    let info = need("info", info)?;
    let kind = match info.kind() {
        proto::Kind::View => Kind::View,
        proto::Kind::Active => Kind::Active,
        proto::Kind::Committed => Kind::Committed,
        proto::Kind::Unknown if lenient => Kind::Active,
        proto::Kind::Unknown => return Err(Error::invalid_argument(format!("info.kind {} is not known", info.kind))),
    };
    Ok(Info {
        name: info.name,
        parent: info.parent,
        kind,
        created_at: time_read("info.created_at", info.created_at)?,
        updated_at: time_read("info.updated_at", info.updated_at)?,
        labels: info.labels,
    })
}
