//! Containers.

use kevel_contract::container::{Container, Runtime};
use kevel_model::Result;
use kevel_proto::containerd::services::containers::v1 as proto;

use super::{any_read, any_wire, anys_read, anys_wire, need, time_read, time_wire};

/// For the wire.
pub fn wire(container: Container) -> proto::Container {
    let runtime = container.runtime;
    let runtime = proto::container::Runtime { name: runtime.name, options: runtime.options.map(any_wire) };
    proto::Container {
        id: container.id,
        labels: container.labels,
        image: container.image,
        runtime: Some(runtime),
        spec: container.spec.map(any_wire),
        snapshotter: container.snapshotter,
        snapshot_key: container.snapshot_key,
        created_at: time_wire(container.created_at),
        updated_at: time_wire(container.updated_at),
        extensions: anys_wire(container.extensions),
        sandbox: container.sandbox,
    }
}

/// From the wire.
pub fn read(container: Option<proto::Container>) -> Result<Container> {
    let container = need("container", container)?;
    let runtime = container.runtime.unwrap_or_default();
    Ok(Container {
        id: container.id,
        labels: container.labels,
        image: container.image,
        runtime: Runtime { name: runtime.name, options: runtime.options.map(any_read) },
        spec: container.spec.map(any_read),
        snapshotter: container.snapshotter,
        snapshot_key: container.snapshot_key,
        created_at: time_read("container.created_at", container.created_at)?,
        updated_at: time_read("container.updated_at", container.updated_at)?,
        extensions: anys_read(container.extensions),
        sandbox: container.sandbox,
    })
}
