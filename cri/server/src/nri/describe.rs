//! Pods, containers and limits in NRI's messages.

use kevel_contract::container::Container as Entry;
use kevel_cri_nri::{
    Subject,
    api::{
        CdiDevice, Container, ContainerState as State, HugepageLimit, Image, LinuxContainer, LinuxCpu, LinuxMemory,
        LinuxPodSandbox, LinuxResources, OptionalInt64, OptionalUInt64, PodSandbox, SecurityProfile,
    },
    oci,
};
use kevel_model::Any;
use kevel_proto::runtime::v1::{ContainerState, LinuxContainerResources};
use serde_json::Value;

use crate::{
    index,
    record::{ContainerRecord, ContainerState as Known, SandboxRecord},
    server::Server,
};

impl Server {
    /// A pod as plugins are shown it. What is not known, because its sandbox has no spec, is left out.
    pub(crate) async fn describe_pod(&self, record: &SandboxRecord) -> PodSandbox {
        let entry = self.containers.get(&self.scope, &record.id).await.ok();
        let spec = document(entry.as_ref().and_then(|entry| entry.spec.as_ref()));
        pod(record, &spec)
    }

    /// The pod of that identifier.
    pub(crate) async fn described_pod(&self, id: &str) -> Option<PodSandbox> {
        let pod = self.index.pod(id).ok()?;
        Some(self.describe_pod(&pod.record).await)
    }

    /// A container as plugins are shown it.
    pub(crate) async fn describe_for_plugins(&self, container: &index::Container) -> Container {
        let entry: Option<Entry> = self.containers.get(&self.scope, &container.record.id).await.ok();
        let spec = document(entry.as_ref().and_then(|entry| entry.spec.as_ref()));
        let image = self.shown_image(&container.record.image_id);
        self::container(&container.record, Some(&container.state), image, &spec)
    }

    /// The container of that identifier with its pod; without one that is gone.
    pub(crate) async fn subject(&self, id: &str) -> Option<Subject> {
        let container = self.index.container(id).ok()?;
        let pod = self.described_pod(&container.record.sandbox_id).await;
        let gone = || PodSandbox { id: container.record.sandbox_id.clone(), ..PodSandbox::default() };
        Some(Subject { pod: pod.unwrap_or_else(gone), container: Some(self.describe_for_plugins(&container).await) })
    }

    /// An image as plugins are shown it.
    pub(super) fn shown_image(&self, id: &str) -> Image {
        let found = self.images.find(id).ok();
        let digest = |name: &String| name.split_once('@').map(|(_, digest)| digest.to_owned());
        Image {
            name: found.as_ref().map(|image| image.name()).unwrap_or_default(),
            digest: found.and_then(|image| image.digests().iter().find_map(digest)).unwrap_or_default(),
            config_digest: id.to_owned(),
        }
    }
}

/// A spec as a document; nothing for none.
pub(super) fn document(spec: Option<&Any>) -> Value {
    spec.and_then(|spec| serde_json::from_slice(&spec.value).ok()).unwrap_or_default()
}

fn pod(record: &SandboxRecord, spec: &Value) -> PodSandbox {
    let config = &record.config;
    let metadata = config.metadata.clone().unwrap_or_default();
    let asked = config.linux.clone().unwrap_or_default();
    let mut linux = LinuxPodSandbox {
        pod_overhead: asked.overhead.as_ref().map(limits),
        pod_resources: asked.resources.as_ref().map(limits),
        cgroup_parent: asked.cgroup_parent,
        ..LinuxPodSandbox::default()
    };
    oci::sandbox(spec, &mut linux);
    // The network is taken down before the pod is gone.
    linux.namespaces.retain(|namespace| {
        namespace.r#type != "network" || namespace.path.is_empty() || std::path::Path::new(&namespace.path).exists()
    });
    let mut annotations = config.annotations.clone();
    if let Some(more) = spec["annotations"].as_object() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        annotations.extend(more.iter().map(|(key, value)| (key.clone(), text(value))));
    }
    PodSandbox {
        id: record.id.clone(),
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        labels: config.labels.clone(),
        annotations,
        runtime_handler: record.handler.clone(),
        linux: Some(linux),
        pid: record.pid,
        ips: record.network.iter().flat_map(|network| &network.ips).map(ToString::to_string).collect(),
    }
}

/// A container; without a state it is being made.
pub(super) fn container(record: &ContainerRecord, state: Option<&Known>, image: Image, spec: &Value) -> Container {
    let config = &record.config;
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let seccomp = security.and_then(|security| security.seccomp.as_ref());
    let none = Known::default();
    let known = state.unwrap_or(&none);
    let shown = match state.map(Known::cri) {
        None | Some(ContainerState::ContainerUnknown) => State::ContainerUnknown,
        Some(ContainerState::ContainerCreated) => State::ContainerCreated,
        Some(ContainerState::ContainerRunning) => State::ContainerRunning,
        Some(ContainerState::ContainerExited) => State::ContainerStopped,
    };
    let mut container = Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox_id.clone(),
        name: config.metadata.clone().unwrap_or_default().name,
        state: shown as i32,
        labels: config.labels.clone(),
        annotations: std::collections::BTreeMap::new(),
        linux: Some(LinuxContainer {
            seccomp_profile: seccomp.map(|profile| SecurityProfile {
                profile_type: profile.profile_type,
                localhost_ref: profile.localhost_ref.clone(),
            }),
            ..LinuxContainer::default()
        }),
        pid: known.pid,
        created_at: record.created_at,
        started_at: known.started_at,
        finished_at: known.finished_at,
        exit_code: known.exit_code,
        status_reason: known.reason.clone(),
        status_message: known.message.clone(),
        cdi_devices: config.cdi_devices.iter().map(|device| CdiDevice { name: device.name.clone() }).collect(),
        image: Some(image),
        ..Container::default()
    };
    oci::container(spec, &mut container);
    container.annotations.extend(config.annotations.clone());
    container
}

/// Limits of the CRI, in which 0 says nothing.
pub(crate) fn limits(from: &LinuxContainerResources) -> LinuxResources {
    let signed = |value: i64| (value != 0).then_some(OptionalInt64 { value });
    let unsigned =
        |value: i64| u64::try_from(value).ok().filter(|value| *value != 0).map(|value| OptionalUInt64 { value });
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: signed(from.memory_limit_in_bytes),
            swap: signed(from.memory_swap_limit_in_bytes),
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            shares: unsigned(from.cpu_shares),
            quota: signed(from.cpu_quota),
            period: unsigned(from.cpu_period),
            cpus: from.cpuset_cpus.clone(),
            mems: from.cpuset_mems.clone(),
            ..LinuxCpu::default()
        }),
        hugepage_limits: from
            .hugepage_limits
            .iter()
            .map(|one| HugepageLimit { page_size: one.page_size.clone(), limit: one.limit })
            .collect(),
        unified: from.unified.clone(),
        ..LinuxResources::default()
    }
}

/// What of NRI's limits the CRI has fields for.
pub(crate) fn requested(from: &LinuxResources) -> LinuxContainerResources {
    let signed = |value: &Option<OptionalInt64>| value.as_ref().map_or(0, |one| one.value);
    let unsigned =
        |value: &Option<OptionalUInt64>| value.as_ref().map_or(0, |one| i64::try_from(one.value).unwrap_or(i64::MAX));
    let (memory, cpu) = (from.memory.unwrap_or_default(), from.cpu.clone().unwrap_or_default());
    LinuxContainerResources {
        cpu_period: unsigned(&cpu.period),
        cpu_quota: signed(&cpu.quota),
        cpu_shares: unsigned(&cpu.shares),
        memory_limit_in_bytes: signed(&memory.limit),
        memory_swap_limit_in_bytes: signed(&memory.swap),
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        hugepage_limits: from
            .hugepage_limits
            .iter()
            .map(|one| kevel_proto::runtime::v1::HugepageLimit { page_size: one.page_size.clone(), limit: one.limit })
            .collect(),
        unified: from.unified.clone(),
        oom_score_adj: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_go_there_and_back() {
        let all = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: -1,
            cpu_shares: 512,
            memory_limit_in_bytes: 1 << 20,
            memory_swap_limit_in_bytes: 2 << 20,
            oom_score_adj: 0,
            cpuset_cpus: "0-1".to_owned(),
            cpuset_mems: "0".to_owned(),
            hugepage_limits: vec![kevel_proto::runtime::v1::HugepageLimit { page_size: "2MB".to_owned(), limit: 7 }],
            unified: [("memory.high".to_owned(), "9".to_owned())].into(),
        };
        for from in [all, LinuxContainerResources::default()] {
            assert_eq!(requested(&limits(&from)), from);
        }
    }
}
