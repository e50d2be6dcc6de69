//! Messages that many services share: descriptors, mounts, platforms, metrics.

use kevel_contract::task::Metric;
use kevel_model::{Descriptor, Error, Mount, Platform, Result};
use kevel_proto::containerd::types as proto;

use super::{any_read, any_wire, need, signed, time_read, time_wire, unsigned};

/// A descriptor for the wire, which has no URLs, platform or artifact type.
pub fn descriptor_wire(descriptor: Descriptor) -> proto::Descriptor {
    proto::Descriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
        annotations: descriptor.annotations,
    }
}

/// A descriptor from the wire.
pub fn descriptor_read(field: &str, descriptor: Option<proto::Descriptor>) -> Result<Descriptor> {
    let proto::Descriptor { media_type, digest, size, annotations } = need(field, descriptor)?;
    let digest = digest.parse().map_err(|error| Error::from(error).context(format!("{field}.digest")))?;
    let size = unsigned(&format!("{field}.size"), size)?;
    Ok(Descriptor { annotations, ..Descriptor::new(media_type, digest, size) })
}

/// Mounts for the wire.
pub fn mounts_wire(mounts: Vec<Mount>) -> Vec<proto::Mount> {
    let wire = |mount: Mount| proto::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(wire).collect()
}

/// Mounts from the wire.
pub fn mounts_read(mounts: Vec<proto::Mount>) -> Vec<Mount> {
    let read = |mount: proto::Mount| Mount {
        kind: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(read).collect()
}

/// A platform for the wire.
pub fn platform_wire(platform: Platform) -> proto::Platform {
    let Platform { architecture, os, os_version, os_features, variant } = platform;
    proto::Platform { os, architecture, variant, os_version, os_features }
}

/// A platform from the wire.
pub fn platform_read(platform: proto::Platform) -> Platform {
    let proto::Platform { os, architecture, variant, os_version, os_features } = platform;
    Platform { architecture, os, os_version, os_features, variant }
}

/// A metric for the wire.
pub fn metric_wire(metric: Metric) -> proto::Metric {
    proto::Metric { timestamp: time_wire(metric.timestamp), id: metric.id, data: metric.data.map(any_wire) }
}

/// A metric from the wire.
pub fn metric_read(metric: proto::Metric) -> Result<Metric> {
    let timestamp = time_read("metric.timestamp", metric.timestamp)?;
    Ok(Metric { timestamp, id: metric.id, data: metric.data.map(any_read) })
}
