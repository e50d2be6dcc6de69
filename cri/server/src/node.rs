//! What is so on this node: facts that specs, statistics and statuses follow from. Read once, at start.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use kevel_cri_spec::{DeviceNode, Node};

const CGROUP: &str = "/sys/fs/cgroup";

/// Looks at the node. Blocks on small files; a fact that cannot be found out is the cautious one.
pub(crate) fn look(disable_apparmor: bool) -> Node {
    let unified_cgroups = is_unified();
    let controllers = controllers(unified_cgroups);
    let apparmor = !disable_apparmor && apparmor();
    Node {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        architecture: kevel_model::Platform::host().architecture,
        unified_cgroups,
        cgroup_options: cgroup_options(),
        seccomp: status_line("Seccomp").is_some(),
        apparmor,
        apparmor_default: if apparmor { crate::apparmor::default_profile() } else { None },
        swap_controller: swap_controller(unified_cgroups),
        hugetlb_controller: controllers.iter().any(|name| name == "hugetlb"),
        capabilities: capabilities(),
        oom_score_adj: read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
        devices: devices(Path::new("/dev")),
        in_user_namespace: in_user_namespace(),
    }
}

/// Whether the kernel lets the daemon lower OOM scores below its own (CAP_SYS_RESOURCE in the first user namespace).
pub(crate) fn may_lower_oom_score(node: &Node) -> bool {
    !node.in_user_namespace && node.capabilities.iter().any(|name| name == "CAP_SYS_RESOURCE")
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn is_unified() -> bool {
    const CGROUP2: i64 = 0x6367_7270;
    rustix::fs::statfs(CGROUP).is_ok_and(|stat| stat.f_type == CGROUP2)
}

fn controllers(unified: bool) -> Vec<String> {
    if unified {
        return read("/sys/fs/cgroup/cgroup.controllers").split_whitespace().map(str::to_owned).collect();
    }
    // Columns: name, hierarchy, number of cgroups, enabled. Hierarchy 0 is not mounted.
    let table = read("/proc/cgroups");
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut columns = line.split_whitespace();
        let (name, hierarchy, enabled) = (columns.next()?, columns.next()?, columns.nth(1)?);
        (hierarchy != "0" && enabled == "1").then(|| name.to_owned())
    })
    .collect()
}

fn swap_controller(unified: bool) -> bool {
    if !unified {
        return Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
    }
    let own = read("/proc/self/cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    limits_swap(Path::new(CGROUP), own)
}

/// Whether cgroups limit swap, seen at the daemon's own; the root of all has no limits, and those below it tell.
fn limits_swap(root: &Path, own: &str) -> bool {
    let own = root.join(own.trim_start_matches('/'));
    if own.join("memory.max").exists() {
        return own.join("memory.swap.max").exists();
    }
    let below = fs::read_dir(own).into_iter().flatten().flatten();
    below.into_iter().any(|entry| entry.path().join("memory.swap.max").exists())
}

fn cgroup_options() -> Vec<String> {
    let Ok(table) = kevel_mount::mount_table() else { return Vec::new() };
    let mount = table.into_iter().rev().find(|mount| mount.mount_point == Path::new(CGROUP));
    mount
        .map(|mount| {
            let mut options = mount.options;
            options.extend(mount.super_options.to_string_lossy().split(',').map(str::to_owned));
            options
        })
        .unwrap_or_default()
}

fn status_line(name: &str) -> Option<String> {
    let status = read("/proc/self/status");
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

fn apparmor() -> bool {
    read("/sys/module/apparmor/parameters/enabled").trim() == "Y" && Path::new("/sys/kernel/security/apparmor").exists()
}

/// Whether SELinux is there, enforcing or not.
pub(crate) fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// The names of the daemon's own capabilities, in the kernel's order.
fn capabilities() -> Vec<String> {
    const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
        NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT \
        SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
        AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON \
        BPF CHECKPOINT_RESTORE";
    let have = |line: &str| status_line(line).and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0);
    let have = have("CapEff") & have("CapBnd");
    let held = NAMES.split_whitespace().enumerate().filter(|(bit, _)| have & (1 << bit) != 0);
    held.map(|(_, name)| format!("CAP_{name}")).collect()
}

fn in_user_namespace() -> bool {
    let map = read("/proc/self/uid_map");
    map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

/// Every device node of the node, without those that every container gets of its own.
fn devices(dir: &Path) -> Vec<DeviceNode> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            let own = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
            if !own.iter().any(|name| entry.file_name() == *name) {
                found.extend(devices(&path));
            }
        } else if path != Path::new("/dev/console") {
            found.extend(device(&path, &path.to_string_lossy()));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The device node at `path`, to appear as `inside`; none when it is no device.
pub(crate) fn device(path: &Path, inside: &str) -> Option<DeviceNode> {
    let meta = fs::symlink_metadata(path).ok()?;
    let kind = meta.file_type();
    let letter = if kind.is_block_device() {
        "b"
    } else if kind.is_char_device() {
        "c"
    } else {
        return None;
    };
    Some(DeviceNode {
        path: inside.to_owned(),
        kind: letter.to_owned(),
        major: i64::from(rustix::fs::major(meta.rdev())),
        minor: i64::from(rustix::fs::minor(meta.rdev())),
        file_mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_limited_where_a_cgroup_has_the_file() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["plain", "swaps"] {
            fs::create_dir(root.path().join(dir)).unwrap();
            fs::write(root.path().join(dir).join("memory.max"), "max\n").unwrap();
        }
        assert!(!limits_swap(root.path(), "/") && !limits_swap(root.path(), "/gone"));
        fs::write(root.path().join("swaps/memory.swap.max"), "max\n").unwrap();
        assert!(limits_swap(root.path(), "/swaps") && !limits_swap(root.path(), "/plain"));
        assert!(limits_swap(root.path(), "/"), "the root has no files of its own");
    }

    #[test]
    fn this_node_has_the_facts() {
        let node = look(false);
        assert!(!node.hostname.is_empty() && !node.architecture.is_empty());
        assert!(node.devices.iter().any(|device| device.path == "/dev/null" && (device.major, device.minor) == (1, 3)));
        assert!(node.devices.iter().all(|device| !device.path.starts_with("/dev/pts/")));
    }
}
