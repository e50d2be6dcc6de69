//! Mounts: the base's, the pod's files, the request's and those for image volumes, in an order in which none hides
//! another.

use serde_json::{Value, json};

use crate::{
    document::Spec,
    error::{Error, Result, invalid, unsupported},
    input::{Container, Handler, Mode, Mount, Node, Pod, Propagation, SandboxPaths, Sharing},
    namespace,
};

/// The sources that need the container's mount label before it starts. The node's own `/dev/shm` is never relabelled.
pub fn relabels(container: &Container, paths: &SandboxPaths) -> Vec<String> {
    let own = pod_files(container, paths).into_iter().filter(|mount| mount.selinux_relabel);
    let asked = container.mounts.iter().chain(&container.image_volumes).filter(|mount| mount.selinux_relabel).cloned();
    own.chain(asked).map(|mount| mount.host_path).collect()
}

/// Everything a container mounts. Runs after the cgroup namespace is decided.
pub(crate) fn of_container(spec: &mut Spec, all: &Sources<'_>) -> Result<()> {
    let given = given(all.container, all.paths)?;
    cgroup(spec, all.handler, all.node)?;
    override_base(spec, &given)?;
    if all.container.privileged {
        writable(spec, &["sysfs", "cgroup"])?;
    }
    bind_sys(spec, all.pod.namespaces.network, namespace::has_user(&all.container.namespaces))?;
    for (field, mount) in given {
        let entry = bind(&field, &mount, all.handler)?;
        spec.list("mounts")?.push(entry);
        propagate(spec, mount.propagation)?;
    }
    Ok(())
}

/// The mounts of the pause container: `/dev/shm` and `resolv.conf`, which runtimes that boot a machine look at. A user
/// namespace needs the three flags, or remounting fails with EPERM.
pub(crate) fn of_sandbox(spec: &mut Spec, pod: &Pod, paths: &SandboxPaths) -> Result<()> {
    spec.list("mounts")?.retain(|mount| mount["destination"] != SHM);
    let shm = if pod.namespaces.ipc == Mode::Node { Some(SHM) } else { paths.shm.as_deref() };
    for (source, destination) in [(shm, SHM), (paths.resolv_conf.as_deref(), "/etc/resolv.conf")] {
        if let Some(source) = source {
            spec.list("mounts")?.push(json!({
                "destination": destination, "type": "bind", "source": source,
                "options": ["rbind", "ro", "nosuid", "nodev", "noexec"],
            }));
        }
    }
    bind_sys(spec, pod.namespaces.network, namespace::has_user(&pod.namespaces))
}

/// What the mounts of a container follow from.
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) handler: &'a Handler,
    pub(crate) node: &'a Node,
    pub(crate) paths: &'a SandboxPaths,
}

const SHM: &str = "/dev/shm";

/// The request's mounts, then the pod's files and the image's volumes where the request has nothing, sorted by depth:
/// `/a` before `/a/b`. Equal depths keep their order.
fn given(container: &Container, paths: &SandboxPaths) -> Result<Vec<(String, Mount)>> {
    let named = |name: &str, mounts: &[Mount]| -> Vec<(String, Mount)> {
        mounts.iter().enumerate().map(|(index, mount)| (format!("{name}[{index}]"), mount.clone())).collect()
    };
    let mut all = named("mounts", &container.mounts);
    let own = named("pod files", &pod_files(container, paths));
    for (field, mount) in own.into_iter().chain(named("image volumes", &container.image_volumes)) {
        if !all.iter().any(|(_, other)| clean(&other.container_path) == clean(&mount.container_path)) {
            all.push((field, mount));
        }
    }
    all.sort_by_key(|(_, mount)| clean(&mount.container_path).matches('/').count());
    Ok(all)
}

/// `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf` and `/dev/shm`. The files are as writable as the root file system
/// and carry the pod's id mappings; the node's `/dev/shm` carries none, which old kernels could not do on tmpfs.
fn pod_files(container: &Container, paths: &SandboxPaths) -> Vec<Mount> {
    let (uids, gids) = match &container.namespaces.user {
        Some(user) => (user.uids.clone(), user.gids.clone()),
        None => (Vec::new(), Vec::new()),
    };
    let files =
        [("/etc/hostname", &paths.hostname), ("/etc/hosts", &paths.hosts), ("/etc/resolv.conf", &paths.resolv_conf)];
    let mut mounts: Vec<Mount> = Vec::new();
    for (place, source) in files {
        if let Some(source) = source {
            mounts.push(Mount {
                container_path: place.into(),
                host_path: source.clone(),
                readonly: container.readonly_rootfs,
                selinux_relabel: true,
                uid_mappings: uids.clone(),
                gid_mappings: gids.clone(),
                ..Mount::default()
            });
        }
    }
    let host = container.namespaces.ipc == Mode::Node;
    let shm = if host { Some(SHM.to_owned()) } else { paths.shm.clone() };
    if let Some(source) = shm {
        let mount = Mount { container_path: SHM.into(), host_path: source, ..Mount::default() };
        mounts.push(Mount { selinux_relabel: !host, ..mount });
    }
    mounts
}

/// Read-only unless the handler says otherwise. In the host's cgroup namespace the options of the one superblock must
/// be repeated, or this mount takes them from the node.
fn cgroup(spec: &mut Spec, handler: &Handler, node: &Node) -> Result<()> {
    let mode = if handler.cgroup_writable { "rw" } else { "ro" };
    let mut options: Vec<String> = ["nosuid", "noexec", "nodev", "relatime", mode].map(String::from).into();
    if !namespace::has(spec, "cgroup") {
        let kept = |option: &&String| matches!(option.as_str(), "nsdelegate" | "memory_recursiveprot");
        options.extend(node.cgroup_options.iter().filter(kept).cloned());
    }
    let mounts = spec.list("mounts")?;
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }));
    Ok(())
}

/// A given mount replaces the base's at its place; a given `/dev` replaces everything below too.
fn override_base(spec: &mut Spec, given: &[(String, Mount)]) -> Result<()> {
    let places: Vec<String> = given.iter().map(|(_, mount)| clean(&mount.container_path)).collect();
    let dev = places.iter().any(|place| place == "/dev");
    spec.list("mounts")?.retain(|mount| {
        let place = clean(mount["destination"].as_str().unwrap_or_default());
        let below = dev && place.starts_with("/dev/");
        !below && !places.contains(&place)
    });
    Ok(())
}

fn writable(spec: &mut Spec, kinds: &[&str]) -> Result<()> {
    for mount in spec.list("mounts")? {
        if !kinds.iter().any(|kind| mount["type"] == *kind) {
            continue;
        }
        if let Some(options) = mount["options"].as_array_mut() {
            for option in options.iter_mut().filter(|option| *option == "ro") {
                *option = "rw".into();
            }
        }
    }
    Ok(())
}

/// In a user namespace that does not own the network namespace sysfs cannot be mounted, so the node's is bound, where
/// the base had its own: mounts below it stay on top.
fn bind_sys(spec: &mut Spec, network: Mode, user_namespace: bool) -> Result<()> {
    if network != Mode::Node || !user_namespace {
        return Ok(());
    }
    for mount in spec.list("mounts")? {
        if mount["destination"] == "/sys" && mount["type"] == "sysfs" {
            *mount = json!({
                "destination": "/sys", "type": "bind", "source": "/sys",
                "options": ["rbind", "rro", "nosuid", "nodev", "noexec"],
            });
        }
    }
    Ok(())
}

fn bind(field: &str, mount: &Mount, handler: &Handler) -> Result<Value> {
    for (name, path) in [("container_path", &mount.container_path), ("host_path", &mount.host_path)] {
        if !path.starts_with('/') || path.contains('\0') {
            return invalid(format!("{field}.{name}"), format!("{path:?} is not an absolute path"));
        }
    }
    if clean(&mount.container_path) == "/" {
        return invalid(format!("{field}.container_path"), "a mount would hide the root file system");
    }
    let mut options = vec!["rbind", propagation(field, mount)?, access(field, mount, handler)?];
    for option in &mount.options {
        if !EXTRA.contains(&option.as_str()) {
            return invalid(format!("{field}.mount_options"), format!("{option:?} is not one of {}", EXTRA.join(", ")));
        }
        options.push(option);
    }
    let mut entry = json!({
        "destination": mount.container_path, "type": "bind", "source": mount.host_path, "options": options,
    });
    for (name, ranges) in [("uidMappings", &mount.uid_mappings), ("gidMappings", &mount.gid_mappings)] {
        if !ranges.is_empty() {
            entry[name] = namespace::mappings(ranges);
        }
    }
    Ok(entry)
}

/// Options that a request may add to a bind mount: flags of the mount, none of which undo a rule made here.
const EXTRA: [&str; 9] =
    ["noexec", "nodev", "nosuid", "noatime", "nodiratime", "relatime", "strictatime", "nosymfollow", "rnoexec"];

fn propagation(field: &str, mount: &Mount) -> Result<&'static str> {
    let refuse = |need: &str| {
        let source = &mount.host_path;
        Err(Error::Unsupported {
            field: format!("{field}.propagation"),
            reason: format!("{source:?} is not on {need}"),
        })
    };
    match (mount.propagation, mount.sharing) {
        (Propagation::Private, _) => Ok("rprivate"),
        (Propagation::Bidirectional, Some(Sharing::Slave | Sharing::Private)) => refuse("a shared mount"),
        (Propagation::Bidirectional, _) => Ok("rshared"),
        (Propagation::HostToContainer, Some(Sharing::Private)) => refuse("a shared or slave mount"),
        (Propagation::HostToContainer, _) => Ok("rslave"),
    }
}

fn access(field: &str, mount: &Mount, handler: &Handler) -> Result<&'static str> {
    if mount.image && !mount.readonly {
        return invalid(format!("{field}.readonly"), "an image is mounted read-only");
    }
    match (mount.readonly, mount.recursive_read_only) {
        (true, false) => Ok("ro"),
        (false, false) => Ok("rw"),
        (false, true) => invalid(format!("{field}.recursive_read_only"), "the mount is not read-only"),
        (true, true) if mount.propagation != Propagation::Private => {
            invalid(format!("{field}.recursive_read_only"), "needs private propagation")
        }
        // The word is what the kubelet looks for.
        (true, true) if !handler.recursive_read_only_mounts => {
            unsupported(format!("{field}.recursive_read_only"), "RROUnsupported: the runtime handler cannot do it")
        }
        (true, true) => Ok("rro"),
    }
}

/// Mounts that travel need a root that lets them: the widest need wins.
fn propagate(spec: &mut Spec, propagation: Propagation) -> Result<()> {
    let now = spec.get("/linux/rootfsPropagation").and_then(Value::as_str).unwrap_or_default();
    match propagation {
        Propagation::Bidirectional => spec.set("linux/rootfsPropagation", "rshared"),
        Propagation::HostToContainer if now != "rshared" => spec.set("linux/rootfsPropagation", "rslave"),
        _ => Ok(()),
    }
}

/// A path without doubled slashes, `.`, `..` and a slash at its end.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
