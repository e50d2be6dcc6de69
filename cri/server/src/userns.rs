//! User namespaces of pods: who has one, and its ids in the words of mounts and snapshotters. What the spec says of
//! them is `kevel-cri-spec`'s.

use kevel_model::{Labels, Result};
use kevel_mount::{IdRange, UserNamespace, With};
use kevel_proto::runtime::v1 as cri;

use crate::files::blocking;

/// The label that tells a snapshotter how user ids map.
pub(crate) const UID_LABEL: &str = "containerd.io/snapshot/uidmapping";
/// The label that tells a snapshotter how group ids map.
pub(crate) const GID_LABEL: &str = "containerd.io/snapshot/gidmapping";

/// The ids of a user namespace: exactly one range each, which begins with the namespace's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) users: IdRange,
    pub(crate) groups: IdRange,
}

impl Ids {
    /// The ids of a namespace that is not the node's; `None` with the node's. Requests were checked before: one range
    /// each.
    pub(crate) fn of(options: Option<&cri::NamespaceOption>) -> Option<Self> {
        let user = options?.userns_options.as_ref().filter(|user| user.mode == cri::NamespaceMode::Pod as i32)?;
        Some(Self { users: range(user.uids.first()?), groups: range(user.gids.first()?) })
    }

    /// Of a pod.
    pub(crate) fn of_pod(config: &cri::PodSandboxConfig) -> Option<Self> {
        Self::of(config.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref())
    }

    /// Of a container.
    pub(crate) fn of_container(config: &cri::ContainerConfig) -> Option<Self> {
        Self::of(config.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref())
    }

    /// Of a mount; `None` when it is not mapped.
    pub(crate) fn of_mount(mount: &cri::Mount) -> Option<Self> {
        Some(Self { users: range(mount.uid_mappings.first()?), groups: range(mount.gid_mappings.first()?) })
    }

    /// What a snapshotter that maps owners is told.
    pub(crate) fn labels(&self) -> Labels {
        let word = |range: &IdRange| format!("{}:{}:{}", range.inside, range.outside, range.size);
        [(UID_LABEL.to_owned(), word(&self.users)), (GID_LABEL.to_owned(), word(&self.groups))].into()
    }

    /// A namespace that owns a network namespace, for the pod's first process to enter.
    pub(crate) async fn namespace(self) -> Result<UserNamespace> {
        blocking(move || Ok(UserNamespace::new(&[self.users], &[self.groups], With::Network)?)).await
    }
}

fn range(mapping: &cri::IdMapping) -> IdRange {
    IdRange { inside: mapping.container_id, outside: mapping.host_id, size: mapping.length }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_namespace_is_none() {
        let mapping = cri::IdMapping { host_id: 65536, container_id: 0, length: 65536 };
        let of = |mode: cri::NamespaceMode| {
            let user = cri::UserNamespace { mode: mode as i32, uids: vec![mapping], gids: vec![mapping] };
            Ids::of(Some(&cri::NamespaceOption { userns_options: Some(user), ..Default::default() }))
        };
        assert_eq!(of(cri::NamespaceMode::Node), None);
        assert_eq!(Ids::of(Some(&cri::NamespaceOption::default())), None);
        let ids = of(cri::NamespaceMode::Pod).unwrap();
        assert_eq!(ids.labels()[UID_LABEL], "0:65536:65536");
        assert_eq!((ids.users.outside(7), ids.groups.outside(65536)), (Some(65543), None));
    }
}
