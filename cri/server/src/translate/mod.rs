//! From checked requests to the input of `kevel-cri-spec` and `kevel-cri-network`.
#![expect(deprecated, reason = "old clients still say profiles in the old fields")]

mod container;
mod pod;

pub(crate) use container::{container, stop_signal};
pub(crate) use pod::{network, pod, resolv_conf, security};

use std::{collections::BTreeMap, io::ErrorKind};

use kevel_cri_spec as spec;
use kevel_model::{Error, Result};
use kevel_proto::runtime::v1 as cri;

/// Limits.
pub(crate) fn resources(from: &cri::LinuxContainerResources) -> spec::Resources {
    spec::Resources {
        cpu_period: from.cpu_period,
        cpu_quota: from.cpu_quota,
        cpu_shares: from.cpu_shares,
        memory_limit: from.memory_limit_in_bytes,
        memory_swap_limit: from.memory_swap_limit_in_bytes,
        oom_score_adj: from.oom_score_adj,
        cpuset_cpus: from.cpuset_cpus.clone(),
        cpuset_mems: from.cpuset_mems.clone(),
        hugepage_limits: from.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit)).collect(),
        unified: from.unified.clone().into_iter().collect::<BTreeMap<_, _>>(),
        pids_limit: 0,
    }
}

fn mode(from: i32) -> spec::Mode {
    match cri::NamespaceMode::try_from(from) {
        Ok(cri::NamespaceMode::Container) => spec::Mode::Container,
        Ok(cri::NamespaceMode::Node) => spec::Mode::Node,
        Ok(cri::NamespaceMode::Target) => spec::Mode::Target,
        _ => spec::Mode::Pod,
    }
}

fn mappings(from: &[cri::IdMapping]) -> Vec<spec::IdMapping> {
    let one =
        |m: &cri::IdMapping| spec::IdMapping { container_id: m.container_id, host_id: m.host_id, length: m.length };
    from.iter().map(one).collect()
}

fn namespaces(from: Option<&cri::NamespaceOption>) -> spec::Namespaces {
    let Some(from) = from else { return spec::Namespaces::default() };
    let user = from.userns_options.as_ref().map(|user| spec::UserNamespace {
        mode: mode(user.mode),
        uids: mappings(&user.uids),
        gids: mappings(&user.gids),
    });
    spec::Namespaces { network: mode(from.network), pid: mode(from.pid), ipc: mode(from.ipc), user }
}

fn policy(from: i32) -> spec::GroupsPolicy {
    match cri::SupplementalGroupsPolicy::try_from(from) {
        Ok(cri::SupplementalGroupsPolicy::Strict) => spec::GroupsPolicy::Strict,
        _ => spec::GroupsPolicy::Merge,
    }
}

/// The seccomp profile of a request: the new field, or the old one with its words. A profile of the node's is read;
/// that blocks on a small file.
fn seccomp(
    field: &str,
    new: Option<&cri::SecurityProfile>,
    old: &str,
    unset: &str,
) -> Result<Option<spec::Profile<serde_json::Value>>> {
    use cri::security_profile::ProfileType;
    let word = match new {
        Some(profile) => match ProfileType::try_from(profile.profile_type) {
            Ok(ProfileType::RuntimeDefault) => "runtime/default".to_owned(),
            Ok(ProfileType::Localhost) => format!("localhost/{}", profile.localhost_ref),
            _ => "unconfined".to_owned(),
        },
        None if old.is_empty() => unset.to_owned(),
        None => old.to_owned(),
    };
    match word.as_str() {
        "" | "unconfined" => Ok(Some(spec::Profile::Unconfined)),
        "runtime/default" | "docker/default" => Ok(Some(spec::Profile::RuntimeDefault)),
        word => {
            let path = word.strip_prefix("localhost/").unwrap_or(word);
            let doing = || format!("{field}: reading seccomp profile {path:?}");
            let text = read_bounded(path).map_err(|error| match error.kind() {
                ErrorKind::IsADirectory | ErrorKind::InvalidInput | ErrorKind::InvalidFilename => {
                    Error::invalid_argument(doing()).with_source(error)
                }
                _ => Error::io(doing(), error),
            })?;
            let profile = serde_json::from_slice(&text);
            let profile = profile.map_err(|error| Error::invalid_argument(doing()).with_source(error))?;
            Ok(Some(spec::Profile::Localhost(profile)))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what is read is bounded by take")]
fn read_bounded(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    const LIMIT: u64 = 4 << 20;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(LIMIT).read_to_end(&mut text)?;
    Ok(text)
}

/// The AppArmor profile of a request, as [`seccomp`].
fn apparmor(new: Option<&cri::SecurityProfile>, old: &str) -> Option<spec::Profile<String>> {
    use cri::security_profile::ProfileType;
    match new {
        Some(profile) => Some(match ProfileType::try_from(profile.profile_type) {
            Ok(ProfileType::RuntimeDefault) => spec::Profile::RuntimeDefault,
            Ok(ProfileType::Localhost) => {
                let name = &profile.localhost_ref;
                spec::Profile::Localhost(name.strip_prefix("localhost/").unwrap_or(name).to_owned())
            }
            _ => spec::Profile::Unconfined,
        }),
        None => match old {
            "" => None,
            "runtime/default" => Some(spec::Profile::RuntimeDefault),
            "unconfined" => Some(spec::Profile::Unconfined),
            name => Some(spec::Profile::Localhost(name.strip_prefix("localhost/").unwrap_or(name).to_owned())),
        },
    }
}
