//! Devices: nodes to make and rules for the devices cgroup.

use serde_json::{Value, json};

use crate::{
    document::Spec,
    error::{Result, invalid},
    input::{Container, Device, DeviceNode, Handler, Node, Policy},
    user,
};

/// The devices that the request names.
pub(crate) fn requested(spec: &mut Spec, container: &Container, policy: &Policy) -> Result<()> {
    for (index, device) in container.devices.iter().enumerate() {
        check(index, device)?;
        for node in &device.nodes {
            let mut node = node.clone();
            if policy.device_ownership_from_security_context {
                own(&mut node, container)?;
            }
            spec.list("linux/devices")?.push(entry(&node));
            spec.list("linux/resources/devices")?.push(json!({
                "allow": true, "type": node.kind, "major": node.major, "minor": node.minor,
                "access": device.permissions,
            }));
        }
    }
    Ok(())
}

/// The node's devices for a privileged container, as far as the handler lets them through.
pub(crate) fn privileged(spec: &mut Spec, handler: &Handler, node: &Node) -> Result<()> {
    if !handler.privileged_without_host_devices {
        let devices = spec.list("linux/devices")?;
        for device in &node.devices {
            if !devices.iter().any(|have| have["path"] == device.path.as_str()) {
                devices.push(entry(device));
            }
        }
    }
    if !handler.privileged_without_host_devices || handler.privileged_without_host_devices_all_devices_allowed {
        spec.set("linux/resources/devices", json!([{ "allow": true, "access": "rwm" }]))?;
    }
    Ok(())
}

fn entry(node: &DeviceNode) -> Value {
    json!({
        "path": node.path, "type": node.kind, "major": node.major, "minor": node.minor,
        "fileMode": node.file_mode, "uid": node.uid, "gid": node.gid,
    })
}

/// Root keeps the node's owner: it may use the device anyway.
fn own(node: &mut DeviceNode, container: &Container) -> Result<()> {
    let uid = user::id("run_as_user", container.user.uid)?;
    let gid = user::id("run_as_group", container.user.gid)?;
    if uid != 0 {
        node.uid = uid;
    }
    if gid != 0 {
        node.gid = gid;
    }
    Ok(())
}

fn check(index: usize, device: &Device) -> Result<()> {
    let field = |name: &str| format!("devices[{index}].{name}");
    if device.permissions.is_empty() || !device.permissions.chars().all(|letter| "rwm".contains(letter)) {
        return invalid(field("permissions"), format!("{:?} is not made of r, w and m", device.permissions));
    }
    for node in &device.nodes {
        if !node.path.starts_with('/') {
            return invalid(field("container_path"), format!("{:?} is not absolute", node.path));
        }
        if !matches!(node.kind.as_str(), "c" | "b" | "u" | "p") {
            return invalid(field("host_path"), format!("{:?} is not a kind of device", node.kind));
        }
    }
    Ok(())
}
