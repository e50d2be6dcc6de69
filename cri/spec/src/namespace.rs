//! Namespaces: which a pod makes, which a container joins, and how user ids map.

use serde_json::{Value, json};

use crate::{
    document::Spec,
    error::{Error, Result, invalid},
    input::{Container, IdMapping, Mode, Namespaces, Pod, SandboxPaths, UserNamespace},
};

/// The namespaces of the pause container.
pub(crate) fn of_sandbox(spec: &mut Spec, namespaces: &Namespaces, paths: &SandboxPaths) -> Result<()> {
    shared_modes(namespaces)?;
    if namespaces.pid == Mode::Target {
        return invalid("namespace_options.pid", "a pod cannot target a container");
    }
    if namespaces.network == Mode::Node {
        leave(spec, "network")?;
        leave(spec, "uts")?;
    } else {
        join(spec, "network", paths.network.as_deref())?;
    }
    if namespaces.pid == Mode::Node {
        leave(spec, "pid")?;
    }
    if namespaces.ipc == Mode::Node {
        leave(spec, "ipc")?;
    }
    if let Some(user) = mapped(namespaces)? {
        // A pod with the node's network gets a new one: there is no network namespace that could own a pinned one.
        let path = if namespaces.network == Mode::Node { None } else { paths.user.as_deref() };
        join(spec, "user", path)?;
        map(spec, user)?;
    }
    Ok(())
}

/// The namespaces of a container. A sandbox that uses the node's namespace has it under its own path, so a container
/// joins by path in both modes; only a path that nobody knows tells the modes apart.
pub(crate) fn of_container(spec: &mut Spec, pod: &Pod, container: &Container, paths: &SandboxPaths) -> Result<()> {
    let namespaces = &container.namespaces;
    shared_modes(namespaces)?;
    let user = mapped(namespaces)?;
    if normal(pod.namespaces.user.as_ref()) != normal(namespaces.user.as_ref()) {
        return invalid("namespace_options.userns_options", "the container's differ from the pod's");
    }
    enter(spec, "network", namespaces.network, paths.network.as_deref())?;
    enter(spec, "ipc", namespaces.ipc, paths.ipc.as_deref())?;
    enter(spec, "uts", namespaces.network, paths.uts.as_deref())?;
    match namespaces.pid {
        Mode::Container => join(spec, "pid", None)?,
        Mode::Target => {
            let Some(target) = &container.target_pid_namespace else {
                return invalid("namespace_options.target_id", "mode TARGET needs a container to target");
            };
            join(spec, "pid", Some(target))?;
        }
        mode => enter(spec, "pid", mode, paths.pid.as_deref())?,
    }
    if let Some(user) = user {
        join(spec, "user", paths.user.as_deref())?;
        map(spec, user)?;
    }
    Ok(())
}

/// Whether processes are in a user namespace other than the node's.
pub(crate) fn has_user(namespaces: &Namespaces) -> bool {
    namespaces.user.as_ref().is_some_and(|user| user.mode == Mode::Pod)
}

/// Whether the spec has a namespace of this kind.
pub(crate) fn has(spec: &Spec, kind: &str) -> bool {
    spec.get("/linux/namespaces").and_then(Value::as_array).is_some_and(|all| all.iter().any(|one| one["type"] == kind))
}

/// Adds or replaces a namespace; without a path it is a new one.
pub(crate) fn join(spec: &mut Spec, kind: &str, path: Option<&str>) -> Result<()> {
    let entry = match path {
        Some(path) => json!({ "type": kind, "path": path }),
        None => json!({ "type": kind }),
    };
    let all = spec.list("linux/namespaces")?;
    match all.iter_mut().find(|one| one["type"] == kind) {
        Some(one) => *one = entry,
        None => all.push(entry),
    }
    Ok(())
}

/// Maps ids as JSON.
pub(crate) fn mappings(mappings: &[IdMapping]) -> Value {
    let entry = |one: &IdMapping| json!({ "containerID": one.container_id, "hostID": one.host_id, "size": one.length });
    mappings.iter().map(entry).collect()
}

fn enter(spec: &mut Spec, kind: &str, mode: Mode, path: Option<&str>) -> Result<()> {
    if mode == Mode::Node && path.is_none() { leave(spec, kind) } else { join(spec, kind, path) }
}

fn leave(spec: &mut Spec, kind: &str) -> Result<()> {
    spec.list("linux/namespaces")?.retain(|one| one["type"] != kind);
    Ok(())
}

fn map(spec: &mut Spec, user: &UserNamespace) -> Result<()> {
    spec.set("linux/uidMappings", mappings(&user.uids))?;
    spec.set("linux/gidMappings", mappings(&user.gids))
}

fn shared_modes(namespaces: &Namespaces) -> Result<()> {
    for (field, mode) in [("network", namespaces.network), ("ipc", namespaces.ipc)] {
        if !matches!(mode, Mode::Pod | Mode::Node) {
            return invalid(format!("namespace_options.{field}"), format!("mode {mode:?} is not POD or NODE"));
        }
    }
    Ok(())
}

/// The user namespace to make, if any, with mappings that the kernel and the snapshotters can take: one range each
/// that has the container's root in it.
fn mapped(namespaces: &Namespaces) -> Result<Option<&UserNamespace>> {
    let Some(user) = &namespaces.user else { return Ok(None) };
    let field = "namespace_options.userns_options";
    match user.mode {
        Mode::Node if user.uids.is_empty() && user.gids.is_empty() => Ok(None),
        Mode::Node => invalid(field, "mode NODE takes no mappings"),
        Mode::Pod => {
            one_range(&format!("{field}.uids"), &user.uids)?;
            one_range(&format!("{field}.gids"), &user.gids)?;
            Ok(Some(user))
        }
        mode => invalid(format!("{field}.mode"), format!("mode {mode:?} is not POD or NODE")),
    }
}

fn one_range(field: &str, ranges: &[IdMapping]) -> Result<()> {
    let refuse = |reason: &str| Err(Error::Invalid { field: field.into(), reason: reason.into() });
    match ranges {
        [range] if range.length == 0 => refuse("the length is 0"),
        [range] if range.container_id != 0 => refuse("the container's id 0 is not mapped"),
        [range] if range.host_id.checked_add(range.length - 1).is_none() => refuse("the range passes the last id"),
        [_] => Ok(()),
        [] => refuse("mode POD needs a mapping"),
        _ => refuse("more than one mapping"),
    }
}

/// A user namespace that is the node's is none.
fn normal(user: Option<&UserNamespace>) -> Option<&UserNamespace> {
    user.filter(|user| user.mode != Mode::Node)
}
