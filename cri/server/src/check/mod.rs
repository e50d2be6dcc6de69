//! Requests, before anything happens: whatever is wrong in itself is refused here, by the name of its field.

mod container;
mod sandbox;

pub(crate) use container::{container_config, resources};
pub(crate) use sandbox::sandbox_config;

use kevel_model::{Code, Error, Result};
use kevel_proto::runtime::v1::{
    NamespaceMode, NamespaceOption, SeLinuxOption, SecurityProfile, security_profile::ProfileType,
};

/// A field of a request that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub(crate) struct FieldError {
    field: String,
    why: String,
}

impl From<FieldError> for Error {
    fn from(error: FieldError) -> Self {
        Self::new(Code::InvalidArgument, error.to_string())
    }
}

/// Refuses a field.
pub(crate) fn wrong<T>(field: impl Into<String>, why: impl Into<String>) -> Result<T, FieldError> {
    Err(FieldError { field: field.into(), why: why.into() })
}

/// The message in a field that must be there.
pub(crate) fn required<'a, T>(field: &str, value: Option<&'a T>) -> Result<&'a T, FieldError> {
    value.ok_or_else(|| FieldError { field: field.to_owned(), why: "missing".to_owned() })
}

/// A piece of a name: not empty, not long, nothing that means something in a path or in CNI's arguments.
fn name(field: &str, text: &str) -> Result<(), FieldError> {
    if text.is_empty() {
        return wrong(field, "empty");
    }
    if text.len() > 253 {
        return wrong(field, "longer than 253 bytes");
    }
    if text.chars().any(|c| c.is_control() || matches!(c, '/' | ';' | '=')) || matches!(text, "." | "..") {
        return wrong(field, format!("{text:?} is not a name"));
    }
    Ok(())
}

/// Parts of a SELinux label: the kernel's policy knows which there are, but none changes another part.
fn selinux(field: &str, options: Option<&SeLinuxOption>) -> Result<(), FieldError> {
    let Some(options) = options else { return Ok(()) };
    for (name, value) in [("user", &options.user), ("role", &options.role), ("type", &options.r#type)] {
        if value.len() > 255 || !value.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            return wrong(format!("{field}.{name}"), format!("{value:?} is not a part of a label"));
        }
    }
    if !options.level.is_empty() && !crate::selinux::is_level(&options.level) {
        return wrong(format!("{field}.level"), format!("{:?} is not a level such as s0:c1,c2", options.level));
    }
    Ok(())
}

/// A word that must be one of an enumeration's.
fn known<E: TryFrom<i32>>(field: &str, value: i32) -> Result<E, FieldError> {
    E::try_from(value).or_else(|_| wrong(field, format!("{value} means nothing")))
}

/// An absolute path without a way up.
pub(crate) fn path(field: &str, text: &str) -> Result<(), FieldError> {
    if text.is_empty() {
        return wrong(field, "empty");
    }
    if !text.starts_with('/') {
        return wrong(field, format!("{text:?} is not an absolute path"));
    }
    clean(field, text)
}

/// A path without a way up, and without what no path has.
fn clean(field: &str, text: &str) -> Result<(), FieldError> {
    if text.contains('\0') {
        return wrong(field, "a NUL in a path");
    }
    if text.len() > 4095 {
        return wrong(field, "longer than 4095 bytes");
    }
    if text.split('/').any(|part| part == "..") {
        return wrong(field, format!("{text:?} has '..' in it"));
    }
    Ok(())
}

fn labels(field: &str, labels: &std::collections::BTreeMap<String, String>) -> Result<(), FieldError> {
    if labels.contains_key("") {
        return wrong(field, "a key is empty");
    }
    Ok(())
}

fn namespaces(field: &str, options: &NamespaceOption, of_container: bool) -> Result<(), FieldError> {
    let network: NamespaceMode = known(&format!("{field}.network"), options.network)?;
    let pid: NamespaceMode = known(&format!("{field}.pid"), options.pid)?;
    let ipc: NamespaceMode = known(&format!("{field}.ipc"), options.ipc)?;
    for (name, mode) in [("network", network), ("ipc", ipc)] {
        if !matches!(mode, NamespaceMode::Pod | NamespaceMode::Node) {
            return wrong(format!("{field}.{name}"), "neither the pod's nor the node's");
        }
    }
    match pid {
        NamespaceMode::Target if !of_container => return wrong(format!("{field}.pid"), "a pod has no target"),
        NamespaceMode::Target if options.target_id.is_empty() => return wrong(format!("{field}.target_id"), "empty"),
        _ => {}
    }
    let Some(user) = &options.userns_options else { return Ok(()) };
    let field = format!("{field}.userns_options");
    match known(&format!("{field}.mode"), user.mode)? {
        NamespaceMode::Node if user.uids.is_empty() && user.gids.is_empty() => Ok(()),
        NamespaceMode::Node => wrong(field, "the node's user namespace has no mappings"),
        NamespaceMode::Pod => {
            for (name, mappings) in [("uids", &user.uids), ("gids", &user.gids)] {
                let [mapping] = mappings.as_slice() else {
                    return wrong(format!("{field}.{name}"), "not exactly one mapping");
                };
                if mapping.container_id != 0 || mapping.length == 0 {
                    return wrong(format!("{field}.{name}"), "does not map id 0");
                }
                if mapping.host_id.checked_add(mapping.length).is_none() {
                    return wrong(format!("{field}.{name}"), "past the last id");
                }
            }
            if user.uids == user.gids { Ok(()) } else { wrong(field, "uids and gids differ") }
        }
        _ => wrong(format!("{field}.mode"), "neither the pod's nor the node's"),
    }
}

fn profile(field: &str, profile: Option<&SecurityProfile>) -> Result<(), FieldError> {
    let Some(profile) = profile else { return Ok(()) };
    let kind: ProfileType = known(&format!("{field}.profile_type"), profile.profile_type)?;
    if kind == ProfileType::Localhost && profile.localhost_ref.is_empty() {
        return wrong(format!("{field}.localhost_ref"), "empty");
    }
    Ok(())
}

fn id(field: &str, id: Option<i64>) -> Result<(), FieldError> {
    match id {
        Some(id) if !(0..i64::from(u32::MAX)).contains(&id) => wrong(field, format!("{id} is not an id")),
        _ => Ok(()),
    }
}

fn groups(field: &str, groups: &[i64]) -> Result<(), FieldError> {
    groups.iter().enumerate().try_for_each(|(index, group)| id(&format!("{field}[{index}]"), Some(*group)))
}
