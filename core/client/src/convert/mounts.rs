//! Mounts that are ready.

use kevel_contract::mounts::{Activation, ActiveMount};
use kevel_model::Result;
use kevel_proto::containerd::types as proto;

use super::{need, time_read, time_wire, types};

/// An activation for the wire.
pub fn wire(activation: Activation) -> proto::ActivationInfo {
    let Activation { name, active, system, labels } = activation;
    let active = active.into_iter().map(active_wire).collect();
    proto::ActivationInfo { name, active, system: types::mounts_wire(system), labels }
}

/// An activation from the wire.
pub fn read(activation: Option<proto::ActivationInfo>) -> Result<Activation> {
    let proto::ActivationInfo { name, active, system, labels } = need("info", activation)?;
    let active = active.into_iter().map(active_read).collect::<Result<_>>()?;
    Ok(Activation { name, active, system: types::mounts_read(system), labels })
}

fn active_wire(active: ActiveMount) -> proto::ActiveMount {
    let ActiveMount { mount, mounted_at, mount_point, data } = active;
    let mount = types::mounts_wire(vec![mount]).pop();
    proto::ActiveMount { mount, mounted_at: time_wire(mounted_at), mount_point, data }
}

fn active_read(active: proto::ActiveMount) -> Result<ActiveMount> {
    let proto::ActiveMount { mount, mounted_at, mount_point, data } = active;
    let mounted_at = time_read("info.active.mounted_at", mounted_at)?;
    let mount = types::mounts_read(mount.into_iter().collect()).pop().unwrap_or_default();
    Ok(ActiveMount { mount, mounted_at, mount_point, data })
}
