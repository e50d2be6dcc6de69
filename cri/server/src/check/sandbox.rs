//! Pod sandbox configurations.

use kevel_proto::runtime::v1::{
    LinuxSandboxSecurityContext, PodSandboxConfig, PortMapping, Protocol, SupplementalGroupsPolicy,
};

use super::{
    FieldError, clean, groups, id, known, labels, name, namespaces, path, profile, required, resources, selinux, wrong,
};

/// Refuses what no pod can be made of.
pub(crate) fn sandbox_config(config: Option<&PodSandboxConfig>) -> Result<&PodSandboxConfig, FieldError> {
    let config = required("config", config)?;
    let metadata = required("config.metadata", config.metadata.as_ref())?;
    name("config.metadata.name", &metadata.name)?;
    name("config.metadata.namespace", &metadata.namespace)?;
    name("config.metadata.uid", &metadata.uid)?;
    if config.hostname.len() > 64 || config.hostname.chars().any(|c| c.is_control() || c == '/' || c == ' ') {
        return wrong("config.hostname", "not a hostname of up to 64 bytes");
    }
    if !config.log_directory.is_empty() {
        path("config.log_directory", &config.log_directory)?;
    }
    labels("config.labels", &config.labels)?;
    labels("config.annotations", &config.annotations)?;
    if let Some(dns) = &config.dns_config {
        for (field, words) in [("servers", &dns.servers), ("searches", &dns.searches), ("options", &dns.options)] {
            if words.iter().any(|word| word.is_empty() || word.chars().any(|c| c.is_control() || c == ' ')) {
                return wrong(format!("config.dns_config.{field}"), "not words");
            }
        }
    }
    for (index, mapping) in config.port_mappings.iter().enumerate() {
        port(&format!("config.port_mappings[{index}]"), mapping)?;
    }
    if config.windows.is_some() {
        return wrong("config.windows", "this is Linux");
    }
    let Some(linux) = &config.linux else { return Ok(config) };
    clean("config.linux.cgroup_parent", &linux.cgroup_parent)?;
    labels("config.linux.sysctls", &linux.sysctls)?;
    for (field, limits) in [("overhead", &linux.overhead), ("resources", &linux.resources)] {
        resources(&format!("config.linux.{field}"), limits.as_ref())?;
    }
    linux.security_context.as_ref().map_or(Ok(()), security)?;
    Ok(config)
}

fn port(field: &str, mapping: &PortMapping) -> Result<(), FieldError> {
    known::<Protocol>(&format!("{field}.protocol"), mapping.protocol)?;
    for (name, port) in [("container_port", mapping.container_port), ("host_port", mapping.host_port)] {
        if u16::try_from(port).is_err() {
            return wrong(format!("{field}.{name}"), format!("{port} is not a port"));
        }
    }
    if mapping.host_port != 0 && mapping.container_port == 0 {
        return wrong(format!("{field}.container_port"), "0 is not a port");
    }
    if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<std::net::IpAddr>().is_err() {
        return wrong(format!("{field}.host_ip"), format!("{:?} is not an address", mapping.host_ip));
    }
    Ok(())
}

fn security(security: &LinuxSandboxSecurityContext) -> Result<(), FieldError> {
    let field = |name: &str| format!("config.linux.security_context.{name}");
    if let Some(options) = &security.namespace_options {
        namespaces(&field("namespace_options"), options, false)?;
    }
    id(&field("run_as_user"), security.run_as_user.map(|user| user.value))?;
    id(&field("run_as_group"), security.run_as_group.map(|group| group.value))?;
    if security.run_as_group.is_some() && security.run_as_user.is_none() {
        return wrong(field("run_as_group"), "a group without a user");
    }
    groups(&field("supplemental_groups"), &security.supplemental_groups)?;
    known::<SupplementalGroupsPolicy>(&field("supplemental_groups_policy"), security.supplemental_groups_policy)?;
    profile(&field("seccomp"), security.seccomp.as_ref())?;
    profile(&field("apparmor"), security.apparmor.as_ref())?;
    selinux(&field("selinux_options"), security.selinux_options.as_ref())
}
