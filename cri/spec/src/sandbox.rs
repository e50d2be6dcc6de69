//! The spec of the pause container, which holds a pod's namespaces.

use crate::{
    annotation, base, cgroup,
    document::Spec,
    error::{Result, invalid},
    input::{Handler, ImageConfig, Mode, Node, Pod, Policy, SandboxPaths},
    mount, namespace, process, resources, security, user,
};

/// All that a sandbox's spec follows from.
#[derive(Clone, Copy, Debug)]
pub struct SandboxInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The pause image's configuration.
    pub image: &'a ImageConfig,
    /// The pause image's name.
    pub image_name: &'a str,
    /// What was made for the sandbox: its network namespace, a pinned user namespace, `/dev/shm`, `resolv.conf`.
    pub paths: &'a SandboxPaths,
    /// The pod's runtime handler.
    pub handler: &'a Handler,
    /// The node.
    pub node: &'a Node,
    /// The configuration.
    pub policy: &'a Policy,
}

/// The kernel must kill containers before the process that holds their pod.
const OOM_SCORE: i64 = -998;
/// The least that a cgroup can have: the pause process sleeps.
const CPU_SHARES: u64 = 2;
/// The longest that the kernel takes.
const HOSTNAME_BYTES: usize = 64;

/// The spec of the pause container. It starts from the built-in base even if the handler has one: that is meant for
/// workloads.
pub fn sandbox(input: &SandboxInput<'_>) -> Result<Spec> {
    let SandboxInput { pod, image, image_name, paths, handler, node, policy } = *input;
    let mut spec = base::start(&Handler::default(), policy, &pod.id)?;
    process::of_sandbox(&mut spec, image)?;
    hostname(&mut spec, pod)?;
    user::apply(&mut spec, &pod.user)?;
    spec.set("root/readonly", true)?;
    cgroup::place(&mut spec, &pod.cgroup_parent, &pod.id)?;
    namespace::of_sandbox(&mut spec, &pod.namespaces, paths)?;
    mount::of_sandbox(&mut spec, pod, paths)?;
    security::labels(&mut spec, &pod.selinux)?;
    if !pod.privileged {
        security::filter(&mut spec, pod.seccomp.as_ref(), node)?;
    }
    spec.set("process/noNewPrivileges", true)?;
    sysctls(&mut spec, pod, node, policy)?;
    spec.set("linux/resources/cpu/shares", CPU_SHARES)?;
    resources::oom_score(&mut spec, OOM_SCORE, node, policy)?;
    if let Some(resources) = &pod.resources {
        annotation::pod_resources(&mut spec, resources)?;
    }
    annotation::pass(&mut spec, &pod.annotations, &handler.pod_annotations)?;
    annotation::pod(&mut spec, pod, "sandbox")?;
    annotation::put(&mut spec, annotation::SANDBOX_LOG_DIRECTORY, &pod.log_directory)?;
    annotation::put(&mut spec, annotation::SANDBOX_IMAGE_NAME, image_name)?;
    Ok(spec)
}

/// A pod with the node's network has the node's UTS namespace, whose hostname nobody may change.
fn hostname(spec: &mut Spec, pod: &Pod) -> Result<()> {
    if pod.hostname.len() > HOSTNAME_BYTES || pod.hostname.contains(['\0', '\n', '/']) {
        return invalid("hostname", format!("{:?} is no hostname of up to {HOSTNAME_BYTES} bytes", pod.hostname));
    }
    if pod.hostname.is_empty() || pod.namespaces.network == Mode::Node {
        return Ok(());
    }
    spec.set("hostname", pod.hostname.as_str())
}

fn sysctls(spec: &mut Spec, pod: &Pod, node: &Node, policy: &Policy) -> Result<()> {
    let mut all = pod.sysctls.clone();
    for (key, value) in &all {
        check_sysctl(pod, key, value)?;
    }
    if pod.namespaces.network != Mode::Node {
        let mut default = |key: &str, value: &str| {
            all.entry(key.into()).or_insert_with(|| value.into());
        };
        if policy.enable_unprivileged_ports {
            default("net.ipv4.ip_unprivileged_port_start", "0");
        }
        // The range is in ids of the user namespace, and most of it is not mapped in one.
        if policy.enable_unprivileged_icmp && !node.in_user_namespace && !namespace::has_user(&pod.namespaces) {
            default("net.ipv4.ping_group_range", "0 2147483647");
        }
    }
    for (key, value) in all {
        spec.object("linux/sysctl")?.insert(key, value.into());
    }
    Ok(())
}

/// A parameter of a namespace that the pod shares with the node would change the node.
fn check_sysctl(pod: &Pod, key: &str, value: &str) -> Result<()> {
    let field = || format!("linux.sysctls[{key:?}]");
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if key.is_empty() || !key.bytes().all(letter) || key.split(['.', '/']).any(str::is_empty) {
        return invalid(field(), "is not the name of a kernel parameter");
    }
    if value.contains('\0') {
        return invalid(field(), "the value has a NUL in it");
    }
    let dotted = key.replace('/', ".");
    if pod.namespaces.network == Mode::Node && dotted.starts_with("net.") {
        return invalid(field(), "the pod has the node's network");
    }
    let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    if pod.namespaces.ipc == Mode::Node && ipc.iter().any(|prefix| dotted.starts_with(prefix)) {
        return invalid(field(), "the pod has the node's IPC");
    }
    Ok(())
}
