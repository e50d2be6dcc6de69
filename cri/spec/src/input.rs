//! What a spec is made from: plain data that mirrors what CRI's `PodSandboxConfig` and `ContainerConfig` say, plus the
//! facts about the node and the handler that the rules need. Nothing here reads a file: whoever fills it in has looked.
//!
//! Every struct has a `Default`, so that a caller names only what it knows.

use std::collections::BTreeMap;

use serde_json::Value;

/// A pod sandbox, as `PodSandboxConfig` describes it.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// The sandbox id; also the id of the pause container.
    pub id: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// The hostname inside the pod; empty means the node's.
    pub hostname: String,
    /// Where the pod's logs are.
    pub log_directory: String,
    /// The annotations of the request.
    pub annotations: BTreeMap<String, String>,
    /// The parent cgroup; empty means a cgroup named after the runtime's namespace.
    pub cgroup_parent: String,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// The sum of what the containers ask for, as the kubelet tells since 1.23.
    pub resources: Option<Resources>,
    /// Whether privileged containers are allowed in the pod.
    pub privileged: bool,
    /// Which namespaces the pod has of its own.
    pub namespaces: Namespaces,
    /// Who the pause process runs as.
    pub user: User,
    /// `None` leaves what the base spec says.
    pub seccomp: Option<Profile<Value>>,
    /// SELinux labels.
    pub selinux: Selinux,
}

/// A container, as `ContainerConfig` describes it.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// The container id.
    pub id: String,
    /// `metadata.name`.
    pub name: String,
    /// The image as the user named it.
    pub image_name: String,
    /// Replaces the image's entrypoint, if not empty.
    pub command: Vec<String>,
    /// Replaces the image's command, if not empty.
    pub args: Vec<String>,
    /// Replaces the image's directory, if not empty. Absolute.
    pub working_dir: String,
    /// Added after the image's environment. Values need not be UTF-8 in CRI; config.json is, so other bytes become U+FFFD.
    pub env: Vec<(String, Vec<u8>)>,
    /// The mounts of the request.
    pub mounts: Vec<Mount>,
    /// Mounts for volumes that the image declares; one of the request at the same place wins.
    pub image_volumes: Vec<Mount>,
    /// Devices of the request.
    pub devices: Vec<Device>,
    /// The annotations of the request.
    pub annotations: BTreeMap<String, String>,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// Limits; `None` sets none and no OOM score.
    pub resources: Option<Resources>,
    /// All capabilities and devices, nothing masked.
    pub privileged: bool,
    /// Whether the root file system is read-only.
    pub readonly_rootfs: bool,
    /// Whether execve can no longer add privileges.
    pub no_new_privileges: bool,
    /// Capabilities beside the default ones.
    pub capabilities: Capabilities,
    /// Which of the pod's namespaces the container joins.
    pub namespaces: Namespaces,
    /// The PID namespace of the container that [`Mode::Target`] names, as a path.
    pub target_pid_namespace: Option<String>,
    /// Who the process runs as.
    pub user: User,
    /// `None` leaves what the base spec says.
    pub seccomp: Option<Profile<Value>>,
    /// `None` means the node's default profile, if it has one.
    pub apparmor: Option<Profile<String>>,
    /// SELinux labels.
    pub selinux: Selinux,
    /// Paths that read as empty (ProcMount).
    pub masked_paths: Vec<String>,
    /// Paths that are read-only (ProcMount).
    pub readonly_paths: Vec<String>,
}

/// What the image says about running it.
#[derive(Clone, Debug, Default)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// The program, or its arguments if there is an entrypoint.
    pub cmd: Vec<String>,
    /// `KEY=value`; an entry without `=` removes an earlier one.
    pub env: Vec<String>,
    /// The working directory.
    pub working_dir: String,
}

/// A runtime handler, which a RuntimeClass names.
#[derive(Clone, Debug, Default)]
pub struct Handler {
    /// A spec to start from in place of the built-in one; members that Kevel does not know survive.
    pub base_runtime_spec: Option<Value>,
    /// Globs of pod annotations that the runtime gets to see.
    pub pod_annotations: Vec<String>,
    /// Globs of container annotations that the runtime gets to see.
    pub container_annotations: Vec<String>,
    /// Privileged containers do not get the node's devices.
    pub privileged_without_host_devices: bool,
    /// With the former: all devices are allowed all the same.
    pub privileged_without_host_devices_all_devices_allowed: bool,
    /// Whether containers may write to their cgroup file system.
    pub cgroup_writable: bool,
    /// Whether the runtime can make mounts read-only recursively.
    pub recursive_read_only_mounts: bool,
}

/// What is so on this node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The node's hostname, for pods that name none.
    pub hostname: String,
    /// The CPU architecture by its Go name: `amd64`, `arm64` and so on.
    pub architecture: String,
    /// Whether the cgroup file system is version 2 only.
    pub unified_cgroups: bool,
    /// Options of `/sys/fs/cgroup`; a mount in the host's cgroup namespace must repeat two of them or it strips them.
    pub cgroup_options: Vec<String>,
    /// Whether the kernel has seccomp filters.
    pub seccomp: bool,
    /// Whether AppArmor is enabled.
    pub apparmor: bool,
    /// The AppArmor profile for containers that name none, if one is loaded.
    pub apparmor_default: Option<String>,
    /// Whether swap is accounted for.
    pub swap_controller: bool,
    /// Whether huge pages are accounted for.
    pub hugetlb_controller: bool,
    /// What the daemon itself may hand on: the answer to "all capabilities". With the `CAP_` prefix.
    pub capabilities: Vec<String>,
    /// The daemon's own OOM score adjustment.
    pub oom_score_adj: i32,
    /// Devices for privileged containers.
    pub devices: Vec<DeviceNode>,
    /// Whether the daemon runs in a user namespace.
    pub in_user_namespace: bool,
}

/// What the operator configured.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The containerd namespace, for cgroups without a parent.
    pub namespace: String,
    /// No process gets a lower OOM score than the daemon has.
    pub restrict_oom_score_adj: bool,
    /// Keep the base spec's masked and read-only paths whatever the request says.
    pub disable_proc_mount: bool,
    /// Drop huge page limits silently.
    pub disable_hugetlb_controller: bool,
    /// Drop huge page limits when the controller is missing; otherwise refuse.
    pub tolerate_missing_hugetlb_controller: bool,
    /// Devices belong to the container's user.
    pub device_ownership_from_security_context: bool,
    /// Pods may bind ports below 1024 without a capability.
    pub enable_unprivileged_ports: bool,
    /// Pods may ping without a capability.
    pub enable_unprivileged_icmp: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            namespace: "k8s.io".into(),
            restrict_oom_score_adj: false,
            disable_proc_mount: false,
            disable_hugetlb_controller: true,
            tolerate_missing_hugetlb_controller: true,
            device_ownership_from_security_context: false,
            enable_unprivileged_ports: true,
            enable_unprivileged_icmp: true,
        }
    }
}

/// What exists on disk and in the kernel for a sandbox: paths on the node. A file that is `None` is not mounted.
#[derive(Clone, Debug, Default)]
pub struct SandboxPaths {
    /// The source of `/etc/hostname`.
    pub hostname: Option<String>,
    /// The source of `/etc/hosts`.
    pub hosts: Option<String>,
    /// The source of `/etc/resolv.conf`.
    pub resolv_conf: Option<String>,
    /// The source of `/dev/shm`, unless the pod uses the node's.
    pub shm: Option<String>,
    /// The network namespace.
    pub network: Option<String>,
    /// The IPC namespace.
    pub ipc: Option<String>,
    /// The UTS namespace.
    pub uts: Option<String>,
    /// The PID namespace.
    pub pid: Option<String>,
    /// The user namespace.
    pub user: Option<String>,
}

impl SandboxPaths {
    /// The namespaces of a running sandbox process.
    #[must_use]
    pub fn with_process(mut self, pid: u32) -> Self {
        let path = |kind| Some(format!("/proc/{pid}/ns/{kind}"));
        (self.network, self.ipc, self.uts) = (path("net"), path("ipc"), path("uts"));
        (self.pid, self.user) = (path("pid"), path("user"));
        self
    }
}

/// `NamespaceMode` of CRI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The pod's, shared by its containers.
    #[default]
    Pod,
    /// The container's own.
    Container,
    /// The node's.
    Node,
    /// That of another container.
    Target,
}

/// `NamespaceOption` of CRI.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    /// [`Mode::Pod`] or [`Mode::Node`]; decides UTS too.
    pub network: Mode,
    /// Any mode; a pod cannot have [`Mode::Target`].
    pub pid: Mode,
    /// [`Mode::Pod`] or [`Mode::Node`].
    pub ipc: Mode,
    /// `None` is the node's user namespace.
    pub user: Option<UserNamespace>,
}

/// `UserNamespace` of CRI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNamespace {
    /// [`Mode::Pod`] with mappings or [`Mode::Node`] without.
    pub mode: Mode,
    /// How user ids map: exactly one range.
    pub uids: Vec<IdMapping>,
    /// How group ids map: exactly one range.
    pub gids: Vec<IdMapping>,
}

/// A range of ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdMapping {
    /// The first id inside.
    pub container_id: u32,
    /// The first id on the node.
    pub host_id: u32,
    /// How many.
    pub length: u32,
}

/// Who a process runs as, after names were looked up in the image.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// The user id.
    pub uid: i64,
    /// The primary group id.
    pub gid: i64,
    /// The groups that the image's `/etc/group` gives the user.
    pub image_groups: Vec<i64>,
    /// The groups of the request.
    pub supplemental_groups: Vec<i64>,
    /// Whether the image's groups count.
    pub groups_policy: GroupsPolicy,
}

/// `SupplementalGroupsPolicy` of CRI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupsPolicy {
    /// The image's groups and those of the request.
    #[default]
    Merge,
    /// Those of the request only.
    Strict,
}

/// `Capability` of CRI: names with or without `CAP_`, in any case, or `ALL`.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    /// Added to the default ones.
    pub add: Vec<String>,
    /// Taken away last.
    pub drop: Vec<String>,
    /// Kept over execve by processes that are not root.
    pub ambient: Vec<String>,
}

/// `SecurityProfile` of CRI, with the local profile already looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile<T> {
    /// Kevel's own.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One of the node's: for seccomp the parsed document, for AppArmor the name of a loaded profile.
    Localhost(T),
}

/// SELinux labels; empty means none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selinux {
    /// The label of the process.
    pub process: String,
    /// The label of the mounts.
    pub mount: String,
}

/// How mounts travel between the node and the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// New ones from the node appear inside (`rslave`).
    HostToContainer,
    /// Both ways (`rshared`).
    Bidirectional,
}

/// How the mount point under a source is shared on the node, as `/proc/self/mountinfo` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Neither.
    Private,
    /// `master:`.
    Slave,
    /// `shared:`.
    Shared,
}

/// A bind mount.
#[derive(Clone, Debug, Default)]
pub struct Mount {
    /// Where it appears; absolute.
    pub container_path: String,
    /// What appears: exists, absolute, symbolic links followed. For an image: where it is mounted.
    pub host_path: String,
    /// No writing through this mount.
    pub readonly: bool,
    /// Nor through mounts below it; needs `readonly`, private propagation and a handler that can.
    pub recursive_read_only: bool,
    /// Whether the source gets the container's mount label; see [`crate::relabels`].
    pub selinux_relabel: bool,
    /// How mounts travel.
    pub propagation: Propagation,
    /// How the source is shared, if the caller looked; `None` skips the check that propagation can work.
    pub sharing: Option<Sharing>,
    /// Ids of the mount mapped.
    pub uid_mappings: Vec<IdMapping>,
    /// Ids of the mount mapped.
    pub gid_mappings: Vec<IdMapping>,
    /// Whether it is an image; those must be read-only.
    pub image: bool,
    /// More options for the bind mount: `noexec`, `nodev`, `nosuid` and such.
    pub options: Vec<String>,
}

/// A device of the request: one node, or all that a directory held.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// The nodes, with their paths inside the container.
    pub nodes: Vec<DeviceNode>,
    /// Any of `r`, `w` and `m`.
    pub permissions: String,
}

/// A device node.
#[derive(Clone, Debug, Default)]
pub struct DeviceNode {
    /// Where it is in the container.
    pub path: String,
    /// `c`, `b`, `u` or `p`.
    pub kind: String,
    /// Its major number.
    pub major: i64,
    /// Its minor number.
    pub minor: i64,
    /// Permission bits.
    pub file_mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// `LinuxContainerResources` of CRI: 0 or empty means not said.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds per period; negative is unlimited.
    pub cpu_quota: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// Bytes; negative is unlimited.
    pub memory_limit: i64,
    /// Bytes of memory and swap together; negative is unlimited.
    pub memory_swap_limit: i64,
    /// -1000 to 1000.
    pub oom_score_adj: i64,
    /// A list such as `0-2,7`.
    pub cpuset_cpus: String,
    /// A list such as `0-2,7`.
    pub cpuset_mems: String,
    /// Page size such as `2MB`, and bytes.
    pub hugepage_limits: Vec<(String, u64)>,
    /// Files of cgroup v2 and what to write to them.
    pub unified: BTreeMap<String, String>,
    /// Processes and threads; CRI has no field for it, configuration may.
    pub pids_limit: i64,
}
