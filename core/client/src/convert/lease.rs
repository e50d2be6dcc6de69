//! Leases and what they keep.

use kevel_contract::lease::{Lease, Resource};
use kevel_model::Result;
use kevel_proto::containerd::services::leases::v1 as proto;

use super::{need, need_text, time_read, time_wire};

/// A lease for the wire.
pub fn wire(lease: Lease) -> proto::Lease {
    proto::Lease { id: lease.id, created_at: time_wire(lease.created_at), labels: lease.labels }
}

/// A lease from the wire.
pub fn read(lease: Option<proto::Lease>) -> Result<Lease> {
    let lease = need("lease", lease)?;
    Ok(Lease { id: lease.id, created_at: time_read("lease.created_at", lease.created_at)?, labels: lease.labels })
}

/// A kept object for the wire.
pub fn resource_wire(resource: Resource) -> proto::Resource {
    proto::Resource { id: resource.id, r#type: resource.kind }
}

/// A kept object from the wire.
pub fn resource_read(resource: Option<proto::Resource>) -> Result<Resource> {
    let resource = need("resource", resource)?;
    need_text("resource.type", &resource.r#type)?;
    need_text("resource.id", &resource.id)?;
    Ok(Resource { kind: resource.r#type, id: resource.id })
}
