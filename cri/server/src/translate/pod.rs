//! Pods.

use kevel_cri_network::{Bandwidth, PodDns, PodNetwork, PortMapping, Protocol};
use kevel_cri_spec as spec;
use kevel_model::{Error, Result};
use kevel_proto::runtime::v1 as cri;

use super::{namespaces, policy, resources, seccomp};
use crate::config::RuntimeConfig;

/// The security context of a pod, empty when the request has none.
pub(crate) fn security(config: &cri::PodSandboxConfig) -> cri::LinuxSandboxSecurityContext {
    config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
}

/// A pod as its spec sees it, its labels excepted. Reads a local seccomp profile, which blocks on a small file.
pub(crate) fn pod(id: &str, config: &cri::PodSandboxConfig, node: &RuntimeConfig) -> Result<spec::Pod> {
    let metadata = config.metadata.clone().unwrap_or_default();
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let field = "config.linux.security_context.seccomp";
    let profile =
        seccomp(field, security.seccomp.as_ref(), &security.seccomp_profile_path, &node.unset_seccomp_profile)?;
    Ok(spec::Pod {
        id: id.to_owned(),
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        hostname: config.hostname.clone(),
        log_directory: config.log_directory.clone(),
        annotations: config.annotations.clone().into_iter().collect(),
        cgroup_parent: linux.cgroup_parent.clone(),
        sysctls: linux.sysctls.clone().into_iter().collect(),
        resources: linux.resources.as_ref().map(resources),
        privileged: security.privileged,
        namespaces: namespaces(security.namespace_options.as_ref()),
        user: spec::User {
            uid: security.run_as_user.map_or(0, |user| user.value),
            gid: security.run_as_group.map_or(0, |group| group.value),
            image_groups: Vec::new(),
            supplemental_groups: security.supplemental_groups.clone(),
            groups_policy: policy(security.supplemental_groups_policy),
        },
        seccomp: profile,
        selinux: spec::Selinux::default(),
    })
}

/// A pod as its networks see it.
pub(crate) fn network(id: &str, config: &cri::PodSandboxConfig, netns: &str) -> Result<PodNetwork> {
    let metadata = config.metadata.clone().unwrap_or_default();
    let dns = config.dns_config.as_ref().map(|dns| PodDns {
        servers: dns.servers.clone(),
        searches: dns.searches.clone(),
        options: dns.options.clone(),
    });
    Ok(PodNetwork {
        id: id.to_owned(),
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        netns: netns.into(),
        port_mappings: config.port_mappings.iter().map(port).collect::<Result<_>>()?,
        bandwidth: bandwidth(&config.annotations)?,
        dns,
        cgroup_parent: config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default(),
        ..PodNetwork::default()
    })
}

fn port(mapping: &cri::PortMapping) -> Result<PortMapping> {
    let wrong = |port: i32| Error::invalid_argument(format!("config.port_mappings: {port} is not a port"));
    let number = |port: i32| u16::try_from(port).map_err(|_| wrong(port));
    Ok(PortMapping {
        host_port: number(mapping.host_port)?,
        container_port: number(mapping.container_port)?,
        protocol: match cri::Protocol::try_from(mapping.protocol) {
            Ok(cri::Protocol::Udp) => Protocol::Udp,
            Ok(cri::Protocol::Sctp) => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        host_ip: mapping.host_ip.parse().ok(),
    })
}

/// Kubernetes' annotations for traffic limits, quantities in bits per second.
fn bandwidth(annotations: &std::collections::BTreeMap<String, String>) -> Result<Option<Bandwidth>> {
    let rate = |name: &str| -> Result<u64> {
        let key = format!("kubernetes.io/{name}-bandwidth");
        let Some(text) = annotations.get(&key) else { return Ok(0) };
        quantity(text).ok_or_else(|| Error::invalid_argument(format!("config.annotations[{key}]: {text:?} is no rate")))
    };
    let limits = Bandwidth { ingress_rate: rate("ingress")?, egress_rate: rate("egress")? };
    Ok((limits != Bandwidth::default()).then_some(limits))
}

/// A quantity such as `10M`, `1Gi` or `1500`.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

/// The text of a pod's `resolv.conf`; none when it has the node's.
pub(crate) fn resolv_conf(config: &cri::PodSandboxConfig) -> Option<String> {
    let dns = config.dns_config.as_ref()?;
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, want) in [
            ("10M", Some(10_000_000)),
            ("1Gi", Some(1 << 30)),
            ("7", Some(7)),
            ("", None),
            ("x", None),
            ("1m", None),
            ("99999999T", None),
            ("-1", None),
        ] {
            assert_eq!(quantity(text), want, "{text}");
        }
    }

    #[test]
    fn resolver_files() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let dns = cri::DnsConfig {
            servers: words(&["10.0.0.10", "fd00::a"]),
            searches: words(&["a.b", "c"]),
            options: words(&["ndots:5"]),
        };
        let config = cri::PodSandboxConfig { dns_config: Some(dns), ..Default::default() };
        let want = "search a.b c\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n";
        assert_eq!(resolv_conf(&config).as_deref(), Some(want));
        assert_eq!(resolv_conf(&cri::PodSandboxConfig::default()), None);
    }
}
