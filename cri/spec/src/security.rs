//! Seccomp, AppArmor and SELinux of a process.

use serde_json::Value;

use crate::{
    capability,
    document::Spec,
    error::{Result, invalid, unsupported},
    input::{Node, Profile, Selinux},
    seccomp,
};

/// Sets the system call filter. Nothing said, and "unconfined", leave what an administrator's base spec says: the
/// kubelet says "unconfined" for every pod that says nothing.
pub(crate) fn filter(spec: &mut Spec, profile: Option<&Profile<Value>>, node: &Node) -> Result<()> {
    match profile {
        None | Some(Profile::Unconfined) => Ok(()),
        Some(_) if !node.seccomp => unsupported("security_context.seccomp", "the kernel has no seccomp"),
        Some(Profile::RuntimeDefault) => {
            let bounding = capability::bounding(spec)?;
            spec.set("linux/seccomp", seccomp::default_profile(&bounding, &node.architecture))
        }
        Some(Profile::Localhost(profile)) => {
            check(profile)?;
            spec.set("linux/seccomp", profile.clone())
        }
    }
}

/// Sets the AppArmor profile. A privileged container gets one only by name.
pub(crate) fn apparmor(
    spec: &mut Spec,
    profile: Option<&Profile<String>>,
    privileged: bool,
    node: &Node,
) -> Result<()> {
    let field = "security_context.apparmor";
    let name = match profile {
        Some(Profile::Unconfined) => return Ok(()),
        Some(_) if !node.apparmor => return unsupported(field, "the node has no AppArmor"),
        Some(Profile::Localhost(name)) => {
            let name = name.strip_prefix("localhost/").unwrap_or(name);
            if name.is_empty() {
                return invalid(field, "the profile has no name");
            }
            Some(name)
        }
        _ if privileged || !node.apparmor => None,
        Some(Profile::RuntimeDefault) if node.apparmor_default.is_none() => {
            return unsupported(field, "the default profile is not loaded");
        }
        _ => node.apparmor_default.as_deref(),
    };
    match name {
        Some(name) => spec.set("process/apparmorProfile", name),
        None => Ok(()),
    }
}

/// Sets the labels, if there are any.
pub(crate) fn labels(spec: &mut Spec, selinux: &Selinux) -> Result<()> {
    if !selinux.process.is_empty() {
        spec.set("process/selinuxLabel", selinux.process.as_str())?;
    }
    if !selinux.mount.is_empty() {
        spec.set("linux/mountLabel", selinux.mount.as_str())?;
    }
    Ok(())
}

/// A profile from the node's disk need only be one in form; the runtime knows which names exist.
fn check(profile: &Value) -> Result<()> {
    let field = "security_context.seccomp.localhost_ref";
    let action = |value: &Value| value.as_str().is_some_and(|action| action.starts_with("SCMP_ACT_"));
    if !profile.is_object() {
        return invalid(field, "the profile is not an object");
    }
    if !action(&profile["defaultAction"]) {
        return invalid(field, "the profile's defaultAction is not an action");
    }
    let rules = match &profile["syscalls"] {
        Value::Null => &[],
        Value::Array(rules) => rules.as_slice(),
        _ => return invalid(field, "the profile's syscalls are not an array"),
    };
    for (index, rule) in rules.iter().enumerate() {
        let named = rule["names"].as_array().is_some_and(|names| names.iter().all(Value::is_string));
        if !named || !action(&rule["action"]) {
            return invalid(field, format!("the profile's syscalls[{index}] has no names or no action"));
        }
    }
    Ok(())
}
