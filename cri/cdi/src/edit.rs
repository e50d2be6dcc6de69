//! Edits of a runtime spec, in the order in which CDI's own implementation makes them.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
};

use serde_json::{Map, Value, json};

use crate::{
    document::{Edits, Hook, IntelRdt, Mount, Node},
    error::{Error, Result},
    name::Device,
};

/// Makes every edit.
pub(crate) fn apply(spec: &mut Value, device: &Device, edits: &Edits) -> Result<()> {
    for entry in &edits.env {
        variable(list(spec, "process/env")?, entry);
    }
    for node in &edits.device_nodes {
        device_node(spec, device, node)?;
    }
    for net in &edits.net_devices {
        object(spec, "linux/netDevices")?.insert(net.host_interface_name.clone(), json!({ "name": net.name }));
    }
    for mount in &edits.mounts {
        bind(list(spec, "mounts")?, mount);
    }
    for hook in &edits.hooks {
        list(spec, &format!("hooks/{}", hook.hook_name))?.push(hook_entry(hook));
    }
    if let Some(rdt) = &edits.intel_rdt {
        object(spec, "linux")?.insert("intelRdt".to_owned(), rdt_entry(rdt));
    }
    for group in edits.groups.iter().filter(|group| **group != 0) {
        let groups = list(spec, "process/user/additionalGids")?;
        if !groups.contains(&Value::from(*group)) {
            groups.push((*group).into());
        }
    }
    Ok(())
}

/// Mounts above come before those below them.
pub(crate) fn sort_mounts(spec: &mut Value) -> Result<()> {
    let depth = |mount: &Value| {
        let place = mount["destination"].as_str().unwrap_or_default();
        place.split('/').filter(|part| !part.is_empty()).count()
    };
    list(spec, "mounts")?.sort_by_key(depth);
    Ok(())
}

fn variable(env: &mut Vec<Value>, entry: &str) {
    let key = entry.split('=').next();
    let same = |have: &&mut Value| have.as_str().is_some_and(|have| have.split('=').next() == key);
    match env.iter_mut().find(same) {
        Some(have) => *have = entry.into(),
        None => env.push(entry.into()),
    }
}

fn device_node(spec: &mut Value, device: &Device, node: &Node) -> Result<()> {
    let (kind, major, minor) = numbers(device, node)?;
    let owner = |name: &str, own: Option<u32>| {
        let of_process = spec.pointer(&format!("/process/user/{name}")).and_then(Value::as_u64).filter(|id| *id != 0);
        own.map(u64::from).or(of_process)
    };
    let mut entry = json!({ "path": node.path, "type": kind, "major": major, "minor": minor });
    for (name, value) in
        [("fileMode", node.file_mode.map(u64::from)), ("uid", owner("uid", node.uid)), ("gid", owner("gid", node.gid))]
    {
        if let Some(value) = value {
            entry[name] = value.into();
        }
    }
    let devices = list(spec, "linux/devices")?;
    devices.retain(|have| have["path"] != node.path.as_str());
    devices.push(entry);
    if matches!(kind.as_str(), "b" | "c") {
        let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
        list(spec, "linux/resources/devices")?
            .push(json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access }));
    }
    Ok(())
}

/// Kind and numbers, of the node on the host where the spec does not say.
fn numbers(device: &Device, node: &Node) -> Result<(String, i64, i64)> {
    if !node.kind.is_empty() && (node.major != 0 || node.kind == "p") {
        return Ok((node.kind.clone(), node.major, node.minor));
    }
    let path = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let wrong = |reason: String| Error::Device { device: device.to_string(), reason };
    let meta = fs::metadata(path).map_err(|error| wrong(format!("device node {path:?}: {error}")))?;
    let kind = match meta.file_type() {
        kind if kind.is_block_device() => "b",
        kind if kind.is_char_device() => "c",
        kind if kind.is_fifo() => "p",
        _ => return Err(wrong(format!("{path:?} is no device"))),
    };
    if !node.kind.is_empty() && node.kind != kind && !(node.kind == "u" && kind == "c") {
        return Err(wrong(format!("{path:?} is of type {kind:?}, not {:?}", node.kind)));
    }
    let (major, minor) = match node.major {
        0 if kind != "p" => (rustix::fs::major(meta.rdev()).into(), rustix::fs::minor(meta.rdev()).into()),
        _ => (node.major, node.minor),
    };
    Ok((kind.to_owned(), major, minor))
}

fn bind(mounts: &mut Vec<Value>, mount: &Mount) {
    mounts.retain(|have| have["destination"] != mount.container_path.as_str());
    let mut entry = json!({ "destination": mount.container_path, "source": mount.host_path });
    if !mount.kind.is_empty() {
        entry["type"] = mount.kind.as_str().into();
    }
    if !mount.options.is_empty() {
        entry["options"] = mount.options.clone().into();
    }
    mounts.push(entry);
}

fn hook_entry(hook: &Hook) -> Value {
    let mut entry = json!({ "path": hook.path });
    for (name, words) in [("args", &hook.args), ("env", &hook.env)] {
        if !words.is_empty() {
            entry[name] = words.clone().into();
        }
    }
    if let Some(timeout) = hook.timeout {
        entry["timeout"] = timeout.into();
    }
    entry
}

fn rdt_entry(rdt: &IntelRdt) -> Value {
    let mut entry = Map::new();
    for (name, text) in [("closID", &rdt.class), ("l3CacheSchema", &rdt.l3), ("memBwSchema", &rdt.bandwidth)] {
        if !text.is_empty() {
            entry.insert(name.to_owned(), text.as_str().into());
        }
    }
    if !rdt.schemata.is_empty() {
        entry.insert("schemata".to_owned(), rdt.schemata.clone().into());
    }
    for (name, flag) in [("enableCMT", rdt.cmt), ("enableMBM", rdt.mbm), ("enableMonitoring", rdt.monitoring)] {
        if flag {
            entry.insert(name.to_owned(), true.into());
        }
    }
    entry.into()
}

/// The object at a path of names joined by `/`, made where there is none.
fn object<'a>(spec: &'a mut Value, path: &str) -> Result<&'a mut Map<String, Value>> {
    let mut at = spec;
    for name in path.split('/') {
        let members = at.as_object_mut().ok_or_else(|| shape(path, "an object"))?;
        at = members.entry(name).or_insert(Value::Null);
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
    }
    at.as_object_mut().ok_or_else(|| shape(path, "an object"))
}

fn list<'a>(spec: &'a mut Value, path: &str) -> Result<&'a mut Vec<Value>> {
    let at = match path.rsplit_once('/') {
        Some((parent, name)) => object(spec, parent)?.entry(name).or_insert(Value::Null),
        None => spec.as_object_mut().ok_or_else(|| shape(path, "an object"))?.entry(path).or_insert(Value::Null),
    };
    if at.is_null() {
        *at = Value::Array(Vec::new());
    }
    at.as_array_mut().ok_or_else(|| shape(path, "an array"))
}

fn shape(path: &str, expected: &'static str) -> Error {
    Error::Shape { path: path.to_owned(), expected }
}
