//! The spec that every other starts from when the handler brings none.

use serde_json::{Value, json};

use crate::{
    capability,
    document::Spec,
    error::Result,
    input::{Handler, Policy},
};

/// The search path of processes whose image says none.
pub(crate) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The handler's base spec or the built-in one, for the container `id`: without `/run` (images bring their own) and
/// in its default cgroup. Only an administrator's base keeps its resource limits, seccomp and AppArmor settings.
pub(crate) fn start(handler: &Handler, policy: &Policy, id: &str) -> Result<Spec> {
    let mut spec = Spec::new(handler.base_runtime_spec.clone().unwrap_or_else(built_in))?;
    spec.set("linux/cgroupsPath", format!("/{}/{id}", policy.namespace))?;
    spec.set("root/path", "rootfs")?;
    spec.list("mounts")?.retain(|mount| mount["destination"] != "/run");
    Ok(spec)
}

fn built_in() -> Value {
    let capabilities = capability::DEFAULT;
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.2.1",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": "rootfs" },
        "mounts": mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let strict = ["nosuid", "noexec", "nodev"];
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let shm = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
    json!([
        mount("/proc", "proc", "proc", &strict),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/dev/shm", "tmpfs", "shm", &shm),
        mount("/dev/mqueue", "mqueue", "mqueue", &strict),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ])
}
