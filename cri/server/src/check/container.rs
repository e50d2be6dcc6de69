//! Container configurations and limits.

use kevel_proto::runtime::v1::{
    ContainerConfig, IdMapping, LinuxContainerResources, LinuxContainerSecurityContext, Mount, MountPropagation,
    Signal, SupplementalGroupsPolicy,
};

use super::{FieldError, clean, groups, id, known, labels, name, namespaces, path, profile, required, selinux, wrong};

/// Refuses what no container can be made of.
pub(crate) fn container_config(config: Option<&ContainerConfig>) -> Result<&ContainerConfig, FieldError> {
    let config = required("config", config)?;
    let metadata = required("config.metadata", config.metadata.as_ref())?;
    name("config.metadata.name", &metadata.name)?;
    let image = required("config.image", config.image.as_ref())?;
    if image.image.is_empty() {
        return wrong("config.image.image", "empty");
    }
    if !config.working_dir.is_empty() {
        path("config.working_dir", &config.working_dir)?;
    }
    for (field, words) in [("command", &config.command), ("args", &config.args)] {
        if words.iter().any(|word| word.contains('\0')) {
            return wrong(format!("config.{field}"), "a NUL in a word");
        }
    }
    for (index, env) in config.envs.iter().enumerate() {
        if env.key.is_empty() || env.key.contains(['=', '\0']) || env.value.contains(&0) {
            return wrong(format!("config.envs[{index}]"), "not a variable");
        }
    }
    for (index, mount) in config.mounts.iter().enumerate() {
        check_mount(&format!("config.mounts[{index}]"), mount)?;
    }
    for (index, device) in config.devices.iter().enumerate() {
        let field = |name: &str| format!("config.devices[{index}].{name}");
        path(&field("host_path"), &device.host_path)?;
        path(&field("container_path"), &device.container_path)?;
        if !device.permissions.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
            return wrong(field("permissions"), format!("{:?} is not made of r, w and m", device.permissions));
        }
    }
    labels("config.labels", &config.labels)?;
    labels("config.annotations", &config.annotations)?;
    clean("config.log_path", &config.log_path)?;
    known::<Signal>("config.stop_signal", config.stop_signal)?;
    if config.windows.is_some() {
        return wrong("config.windows", "this is Linux");
    }
    let Some(linux) = &config.linux else { return Ok(config) };
    resources("config.linux.resources", linux.resources.as_ref())?;
    linux.security_context.as_ref().map_or(Ok(()), security)?;
    Ok(config)
}

fn check_mount(field: &str, mount: &Mount) -> Result<(), FieldError> {
    let at = |name: &str| format!("{field}.{name}");
    path(&at("container_path"), &mount.container_path)?;
    known::<MountPropagation>(&at("propagation"), mount.propagation)?;
    match &mount.image {
        Some(image) if image.image.is_empty() => return wrong(at("image.image"), "empty"),
        Some(_) if !mount.host_path.is_empty() => return wrong(at("host_path"), "beside an image"),
        Some(_) if !mount.readonly => return wrong(at("readonly"), "an image is mounted read-only"),
        Some(_) => clean(&at("image_sub_path"), &mount.image_sub_path)?,
        None if !mount.image_sub_path.is_empty() => return wrong(at("image_sub_path"), "without an image"),
        None => path(&at("host_path"), &mount.host_path)?,
    }
    ids(&at("uidMappings"), &mount.uid_mappings)?;
    ids(&at("gidMappings"), &mount.gid_mappings)?;
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return wrong(at("gidMappings"), "users and groups are mapped together or not at all");
    }
    if mount.recursive_read_only && !mount.readonly {
        return wrong(at("recursive_read_only"), "without readonly");
    }
    if mount.recursive_read_only && mount.propagation != MountPropagation::PropagationPrivate as i32 {
        return wrong(at("recursive_read_only"), "with propagation");
    }
    Ok(())
}

/// At most one range: that is what pods have, and what snapshotters take.
fn ids(field: &str, mappings: &[IdMapping]) -> Result<(), FieldError> {
    match mappings {
        [] => Ok(()),
        [one] if one.length == 0 => wrong(field, "an empty range"),
        [one] => match one.host_id.checked_add(one.length).and(one.container_id.checked_add(one.length)) {
            Some(_) => Ok(()),
            None => wrong(field, "past the last id"),
        },
        _ => wrong(field, "more than one mapping"),
    }
}

fn security(security: &LinuxContainerSecurityContext) -> Result<(), FieldError> {
    let field = |name: &str| format!("config.linux.security_context.{name}");
    if let Some(options) = &security.namespace_options {
        namespaces(&field("namespace_options"), options, true)?;
    }
    id(&field("run_as_user"), security.run_as_user.map(|user| user.value))?;
    id(&field("run_as_group"), security.run_as_group.map(|group| group.value))?;
    if security.run_as_user.is_some() && !security.run_as_username.is_empty() {
        return wrong(field("run_as_username"), "beside run_as_user");
    }
    if security.run_as_username.contains([':', '\0']) {
        return wrong(field("run_as_username"), "not a name");
    }
    groups(&field("supplemental_groups"), &security.supplemental_groups)?;
    known::<SupplementalGroupsPolicy>(&field("supplemental_groups_policy"), security.supplemental_groups_policy)?;
    for (name, paths) in [("masked_paths", &security.masked_paths), ("readonly_paths", &security.readonly_paths)] {
        paths.iter().enumerate().try_for_each(|(i, one)| path(&field(&format!("{name}[{i}]")), one))?;
    }
    profile(&field("seccomp"), security.seccomp.as_ref())?;
    profile(&field("apparmor"), security.apparmor.as_ref())?;
    selinux(&field("selinux_options"), security.selinux_options.as_ref())
}

/// Refuses limits that no kernel takes.
pub(crate) fn resources(field: &str, limits: Option<&LinuxContainerResources>) -> Result<(), FieldError> {
    let Some(limits) = limits else { return Ok(()) };
    for (name, value) in [("cpu_period", limits.cpu_period), ("cpu_shares", limits.cpu_shares)] {
        if value < 0 {
            return wrong(format!("{field}.{name}"), format!("{value} is negative"));
        }
    }
    if !(-1000..=1000).contains(&limits.oom_score_adj) {
        return wrong(
            format!("{field}.oom_score_adj"),
            format!("{} is not within -1000 and 1000", limits.oom_score_adj),
        );
    }
    for (name, list) in [("cpuset_cpus", &limits.cpuset_cpus), ("cpuset_mems", &limits.cpuset_mems)] {
        if !list.bytes().all(|b| b.is_ascii_digit() || b == b',' || b == b'-') {
            return wrong(format!("{field}.{name}"), format!("{list:?} is not a list of numbers"));
        }
    }
    for file in limits.unified.keys() {
        if file.is_empty() || file.contains(['/', '\0']) || !file.contains('.') {
            return wrong(format!("{field}.unified"), format!("{file:?} is not a file of a cgroup"));
        }
    }
    Ok(())
}
