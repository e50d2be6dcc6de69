//! The spec of a container in a pod.

use crate::{
    annotation, base, capability, cgroup, device,
    document::Spec,
    error::{Result, invalid},
    input::{Container, Handler, ImageConfig, Node, Pod, Policy, SandboxPaths},
    mount, namespace, process, resources, security, user,
};

/// All that a container's spec follows from.
#[derive(Clone, Copy, Debug)]
pub struct ContainerInput<'a> {
    /// The container's pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The container's image.
    pub image: &'a ImageConfig,
    /// What exists for the pod's sandbox.
    pub paths: &'a SandboxPaths,
    /// The pod's runtime handler.
    pub handler: &'a Handler,
    /// The node.
    pub node: &'a Node,
    /// The configuration.
    pub policy: &'a Policy,
}

/// The spec of a container. The order of the steps matters: seccomp looks at the capabilities, mounts look at the
/// cgroup namespace, privileges come after what they replace.
pub fn container(input: &ContainerInput<'_>) -> Result<Spec> {
    let ContainerInput { pod, container, image, paths, handler, node, policy } = *input;
    if container.privileged && !pod.privileged {
        return invalid("security_context.privileged", "the pod does not allow privileged containers");
    }
    let mut spec = base::start(handler, policy, &container.id)?;
    process::of_container(&mut spec, pod, container, image, node)?;
    user::apply(&mut spec, &container.user)?;
    if node.unified_cgroups && !container.privileged {
        namespace::join(&mut spec, "cgroup", None)?;
    }
    mount::of_container(&mut spec, &mount::Sources { pod, container, handler, node, paths })?;
    hidden_paths(&mut spec, container, policy)?;
    device::requested(&mut spec, container, policy)?;
    rights(&mut spec, input)?;
    if container.readonly_rootfs {
        spec.set("root/readonly", true)?;
    }
    if let Some(limits) = &container.resources {
        resources::apply(&mut spec, limits, node, policy)?;
        resources::oom_score(&mut spec, limits.oom_score_adj, node, policy)?;
    }
    cgroup::place(&mut spec, &pod.cgroup_parent, &container.id)?;
    namespace::of_container(&mut spec, pod, container, paths)?;
    annotation::pass(&mut spec, &pod.annotations, &handler.pod_annotations)?;
    annotation::pass(&mut spec, &container.annotations, &handler.container_annotations)?;
    annotation::pod(&mut spec, pod, "container")?;
    annotation::put(&mut spec, annotation::CONTAINER_NAME, &container.name)?;
    annotation::put(&mut spec, annotation::IMAGE_NAME, &container.image_name)?;
    Ok(spec)
}

/// Capabilities, filters and labels.
fn rights(spec: &mut Spec, input: &ContainerInput<'_>) -> Result<()> {
    let ContainerInput { container, handler, node, .. } = *input;
    capability::apply(spec, &container.capabilities, node)?;
    if container.privileged {
        capability::all(spec, node)?;
        device::privileged(spec, handler, node)?;
        for path in ["linux/maskedPaths", "linux/readonlyPaths", "linux/seccomp", "process/apparmorProfile"] {
            spec.remove(path);
        }
    } else {
        security::filter(spec, container.seccomp.as_ref(), node)?;
    }
    security::apparmor(spec, container.apparmor.as_ref(), container.privileged, node)?;
    security::labels(spec, &container.selinux)?;
    spec.set("process/noNewPrivileges", container.no_new_privileges)
}

/// The kubelet decides what is masked (ProcMount), unless the operator forbade it.
fn hidden_paths(spec: &mut Spec, container: &Container, policy: &Policy) -> Result<()> {
    if policy.disable_proc_mount {
        return Ok(());
    }
    for (member, paths) in
        [("linux/maskedPaths", &container.masked_paths), ("linux/readonlyPaths", &container.readonly_paths)]
    {
        spec.remove(member);
        if !paths.is_empty() {
            spec.set(member, paths.clone())?;
        }
    }
    Ok(())
}
