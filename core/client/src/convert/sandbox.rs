//! Sandboxes.

use kevel_contract::{container::Runtime, sandbox::Sandbox};
use kevel_model::Result;
use kevel_proto::containerd::types as proto;

use super::{any_read, any_wire, anys_read, anys_wire, need, time_read, time_wire};

/// For the wire.
pub fn wire(sandbox: Sandbox) -> proto::Sandbox {
    let runtime = sandbox.runtime;
    let runtime = proto::sandbox::Runtime { name: runtime.name, options: runtime.options.map(any_wire) };
    proto::Sandbox {
        sandbox_id: sandbox.id,
        runtime: Some(runtime),
        spec: sandbox.spec.map(any_wire),
        labels: sandbox.labels,
        created_at: time_wire(sandbox.created_at),
        updated_at: time_wire(sandbox.updated_at),
        extensions: anys_wire(sandbox.extensions),
        sandboxer: sandbox.sandboxer,
    }
}

/// From the wire.
pub fn read(sandbox: Option<proto::Sandbox>) -> Result<Sandbox> {
    let sandbox = need("sandbox", sandbox)?;
    let runtime = sandbox.runtime.unwrap_or_default();
    Ok(Sandbox {
        id: sandbox.sandbox_id,
        runtime: Runtime { name: runtime.name, options: runtime.options.map(any_read) },
        spec: sandbox.spec.map(any_read),
        labels: sandbox.labels,
        created_at: time_read("sandbox.created_at", sandbox.created_at)?,
        updated_at: time_read("sandbox.updated_at", sandbox.updated_at)?,
        extensions: anys_read(sandbox.extensions),
        sandboxer: sandbox.sandboxer,
    })
}
