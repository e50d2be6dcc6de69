//! SELinux labels of pods and containers: one level (a pair of categories) for each pod, shared by its containers, so that no
//! pod can touch another's files.
//!
//! Levels in use are counted here, in memory; the labels are in the records, from which the next daemon reserves them again.
//! Where SELinux is not enabled nothing has a label.

mod context;
mod policy;
mod relabel;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kevel_cri_spec as spec;
use kevel_model::{Error, Result};
use kevel_proto::runtime::v1::SeLinuxOption;
use serde::{Deserialize, Serialize};

pub(crate) use context::{Context, is_level};
pub(crate) use policy::Policy;
pub(crate) use relabel::relabel;

/// Categories that there are at most.
pub(crate) const CATEGORIES: u32 = 1024;
/// Runtimes that start a virtual machine.
const MACHINES: &str = "io.containerd.kata";

/// The labels of a pod or container, as they are kept on record; empty means none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Labels {
    /// Of its processes, also when a privileged one does not get it.
    pub(crate) process: String,
    /// Of its files.
    pub(crate) mount: String,
}

/// Gives out labels.
#[derive(Debug, Default)]
pub(crate) struct Selinux {
    /// None when SELinux is not enabled.
    policy: Option<Policy>,
    categories: u32,
    /// How many have a level.
    levels: Mutex<BTreeMap<String, usize>>,
}

impl Selinux {
    /// Labels of a policy with categories below a number.
    pub(crate) fn new(policy: Policy, categories: u32) -> Self {
        Self { policy: Some(policy), categories, levels: Mutex::default() }
    }

    /// The labels for a pod; its level is its own unless the request has one.
    ///
    /// # Errors
    /// When every level is in use.
    pub(crate) fn of_pod(&self, options: Option<&SeLinuxOption>) -> Result<Labels> {
        self.labels(options.cloned().unwrap_or_default())
    }

    /// The labels for a container: what it asks for, else those of its pod.
    ///
    /// # Errors
    /// As [`Selinux::of_pod`].
    pub(crate) fn of_container(&self, options: Option<&SeLinuxOption>, pod: &Labels) -> Result<Labels> {
        let own = options.filter(|options| **options != SeLinuxOption::default()).cloned();
        let pods = || {
            let pod = Context::parse(&pod.process)?;
            Some(SeLinuxOption { user: pod.user, role: pod.role, r#type: pod.kind, level: pod.level })
        };
        self.labels(own.or_else(pods).unwrap_or_default())
    }

    fn labels(&self, options: SeLinuxOption) -> Result<Labels> {
        let Some(policy) = &self.policy else { return Ok(Labels::default()) };
        let (Some(process), Some(file)) = (&policy.process, &policy.file) else { return Ok(Labels::default()) };
        let (mut process, mut file) = (process.clone(), file.clone());
        if !options.level.is_empty() {
            process.level = options.level;
            self.count(&process.level);
        } else if !process.level.is_empty() {
            process.level = self.level()?;
        }
        if !process.level.is_empty() {
            file.level.clone_from(&process.level);
        }
        if !options.user.is_empty() {
            (process.user, file.user) = (options.user.clone(), options.user);
        }
        if !options.role.is_empty() {
            process.role = options.role;
        }
        if !options.r#type.is_empty() {
            process.kind = options.r#type;
        }
        Ok(Labels { process: process.to_string(), mount: file.to_string() })
    }

    /// A level that nobody has.
    fn level(&self) -> Result<String> {
        let mut levels = self.lock();
        let random = self.random()?;
        // Every pair once, from a random one on.
        let all = self.categories * (self.categories - 1) / 2;
        let pair = |number: u32| {
            let (mut low, mut left) = (0, number);
            while left >= self.categories - 1 - low {
                left -= self.categories - 1 - low;
                low += 1;
            }
            format!("s0:c{low},c{}", low + 1 + left)
        };
        let free = (0..all).map(|step| pair((random % all + step) % all)).find(|level| !levels.contains_key(level));
        let level = free.ok_or_else(|| Error::resource_exhausted(format!("all {all} SELinux levels are in use")))?;
        levels.insert(level.clone(), 1);
        Ok(level)
    }

    fn random(&self) -> Result<u32> {
        let id = crate::identity::new_id()?;
        Ok(id.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, level: &str) {
        *self.lock().entry(level.to_owned()).or_default() += 1;
    }

    /// Takes up the labels of a record again.
    pub(crate) fn reserve(&self, labels: &Labels) {
        if let Some(context) = Context::parse(&labels.process).filter(|context| !context.level.is_empty()) {
            self.count(&context.level);
        }
    }

    /// A pod or container is gone, and with the last one of its level the level is free.
    pub(crate) fn release(&self, labels: &Labels) {
        let Some(context) = Context::parse(&labels.process) else { return };
        let mut levels = self.lock();
        if let Some(count) = levels.get_mut(&context.level) {
            *count -= 1;
            if *count == 0 {
                levels.remove(&context.level);
            }
        }
    }

    /// The labels for a spec: a privileged process has none, a machine that of machines.
    pub(crate) fn for_spec(&self, labels: &Labels, privileged: bool, runtime: &str) -> spec::Selinux {
        let machine = self.policy.as_ref().and_then(|policy| policy.machine.as_ref());
        let mut process = labels.process.clone();
        if let Some(machine) = machine.filter(|_| runtime.contains(MACHINES))
            && let Some(own) = Context::parse(&process)
        {
            process = Context { kind: machine.kind.clone(), ..own }.to_string();
        }
        if privileged {
            process.clear();
        }
        spec::Selinux { process, mount: labels.mount.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selinux(categories: u32) -> Selinux {
        let context = |label: &str| Context::parse(label);
        let policy = Policy {
            process: context("system_u:system_r:container_t:s0"),
            machine: context("system_u:system_r:container_kvm_t:s0"),
            file: context("system_u:object_r:container_file_t:s0"),
        };
        Selinux::new(policy, categories)
    }

    fn option(kind: &str, level: &str) -> Option<SeLinuxOption> {
        Some(SeLinuxOption { r#type: kind.into(), level: level.into(), ..Default::default() })
    }

    #[test]
    fn every_pod_has_a_level_of_its_own_until_none_is_left() {
        let selinux = selinux(4);
        let pods: Vec<_> = (0..6).map(|_| selinux.of_pod(None).unwrap()).collect();
        let distinct: std::collections::BTreeSet<_> = pods.iter().map(|pod| pod.process.clone()).collect();
        assert_eq!(distinct.len(), 6);
        assert!(distinct.contains("system_u:system_r:container_t:s0:c2,c3"), "{distinct:?}");
        assert_eq!(selinux.of_pod(None).unwrap_err().to_string(), "all 6 SELinux levels are in use");
        // A container has its pod's, which is free when both are gone.
        let pod = &pods[0];
        let container = selinux.of_container(None, pod).unwrap();
        assert_eq!(&container, pod);
        assert_eq!(pod.mount, pod.process.replace("system_r:container_t", "object_r:container_file_t"));
        selinux.release(pod);
        assert!(selinux.of_pod(None).is_err());
        selinux.release(&container);
        assert_eq!(&selinux.of_pod(None).unwrap(), pod);
    }

    #[test]
    fn levels_are_reserved_again_by_the_next_daemon() {
        let (before, after) = (selinux(2), selinux(2));
        let pod = before.of_pod(None).unwrap();
        after.reserve(&pod);
        assert!(after.of_pod(None).is_err());
        after.release(&pod);
        after.release(&pod);
        assert_eq!(after.of_pod(None).unwrap(), pod);
    }

    #[test]
    fn requests_choose_parts() {
        let selinux = selinux(CATEGORIES);
        let pod = selinux.of_pod(option("spc_t", "s0:c7,c8").as_ref()).unwrap();
        assert_eq!(pod.process, "system_u:system_r:spc_t:s0:c7,c8");
        assert_eq!(pod.mount, "system_u:object_r:container_file_t:s0:c7,c8");
        let all = SeLinuxOption { user: "u".into(), role: "r".into(), r#type: "t".into(), level: "s1".into() };
        let own = selinux.of_container(Some(&all), &pod).unwrap();
        assert_eq!((own.process.as_str(), own.mount.as_str()), ("u:r:t:s1", "u:object_r:container_file_t:s1"));
        // Without a level of its own it gets one that nobody has.
        let typed = selinux.of_container(option("other_t", "").as_ref(), &pod).unwrap();
        assert!(typed.process.starts_with("system_u:system_r:other_t:s0:c") && !typed.process.ends_with(":c7,c8"));
        assert_eq!(selinux.of_container(Some(&SeLinuxOption::default()), &pod).unwrap(), pod);
    }

    #[test]
    fn privileged_processes_and_machines() {
        let selinux = selinux(CATEGORIES);
        let pod = selinux.of_pod(option("", "s0:c1,c2").as_ref()).unwrap();
        let of = |privileged, runtime| selinux.for_spec(&pod, privileged, runtime);
        assert_eq!(of(false, "io.containerd.runc.v2").process, pod.process);
        assert_eq!(of(false, "io.containerd.kata.v2").process, "system_u:system_r:container_kvm_t:s0:c1,c2");
        assert_eq!(
            of(true, "io.containerd.runc.v2"),
            spec::Selinux { process: String::new(), mount: pod.mount.clone() }
        );
    }

    #[test]
    fn nothing_has_a_label_where_it_is_not_enabled() {
        let off = Selinux::default();
        let labels = off.of_pod(option("spc_t", "s0").as_ref()).unwrap();
        assert_eq!(labels, Labels::default());
        assert_eq!(off.for_spec(&labels, false, "io.containerd.kata.v2"), spec::Selinux::default());
        off.release(&labels);
        let bare = Selinux::new(Policy::default(), CATEGORIES);
        assert_eq!(bare.of_pod(None).unwrap(), Labels::default());
    }
}
