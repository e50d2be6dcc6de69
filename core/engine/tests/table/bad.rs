//! Specs that no runtime takes, and those that the engine does not take yet: its error names the field.

use serde_json::{Value, json};

use super::{Case, Expect};

pub fn cases() -> Vec<Case> {
    let both: Vec<(&'static str, Value, &'static str)> = vec![
        ("/process", json!(null), "process"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!(["/none"]), "process.args"),
        ("/process/args", json!(["/data"]), "process.args"),
        ("/process/args", json!(["/data/file"]), "process.args"),
        ("/process/args", json!("sh"), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/cwd", json!("/data/file"), "process.cwd"),
        ("/process/env", json!(["PATH=/bin", "NOVALUE"]), "process.env[1]"),
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/process/user", json!("root"), "process.user"),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]), "process.rlimits[0].type"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 2, "hard": 2}]),
            "process.rlimits[1]",
        ),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]), "process.rlimits[0]"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}), "process.ioPriority"),
        ("/process/scheduler", json!({"policy": "SCHED_NOPE"}), "process.scheduler.policy"),
        ("/process/apparmorProfile", json!("none-such"), "process.apparmorProfile"),
        ("/process/selinuxLabel", json!("a:b:c:d"), "process.selinuxLabel"),
        ("/linux/mountLabel", json!("a:b:c:d"), "linux.mountLabel"),
        ("/root", json!(null), "root"),
        ("/root/path", json!("nothing"), "root.path"),
        ("/root/path", json!("config.json"), "root.path"),
        ("/mounts/-", json!({"destination": "/mnt", "type": "no-such-fs", "source": "x"}), "mounts[5]"),
        (
            "/mounts/-",
            json!({"destination": "/mnt", "type": "bind", "source": "/no/such", "options": ["bind"]}),
            "mounts[5].source",
        ),
        (
            "/mounts/-",
            json!({"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["size=nonsense"]}),
            "mounts[5]",
        ),
        (
            "/mounts/-",
            json!({"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["nonsense"]}),
            "mounts[5]",
        ),
        ("/mounts", json!("x"), "mounts"),
        ("/linux/namespaces/-", json!({"type": "nonsense"}), "linux.namespaces[6].type"),
        ("/linux/namespaces/-", json!({"type": "pid"}), "linux.namespaces[6].type"),
        ("/linux/namespaces/-", json!({"type": "time", "path": "/no/such"}), "linux.namespaces[6].path"),
        ("/linux/namespaces/4", json!({"type": "network", "path": "/dev/null"}), "linux.namespaces[4].path"),
        ("/linux/namespaces/-", json!({"type": "user"}), "linux.uidMappings"),
        ("/linux/timeOffsets", json!({"monotonic": {"secs": 1}}), "linux.timeOffsets"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "z", "major": 1, "minor": 1}]), "linux.devices[0].type"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOPE"}), "linux.seccomp.defaultAction"),
        ("/linux/personality", json!({"domain": "MINIX"}), "linux.personality.domain"),
        ("/linux/resources/memory/limit", json!("much"), "linux.resources.memory.limit"),
        ("/hooks", json!({"createRuntime": [{"path": "relative"}]}), "hooks.createRuntime[0].path"),
        ("/hooks", json!({"createRuntime": [{"path": "/no/such"}]}), "hooks.createRuntime[0]"),
        ("/hostname", json!(5), "hostname"),
    ];
    let ours: Vec<(&'static str, Value, &'static str)> = vec![
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/linux", json!(null), "linux"),
        ("/linux/namespaces", json!([{"type": "pid"}]), "linux.namespaces"),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        ("/linux/netDevices", json!({"eth9": {}}), "linux.netDevices"),
        ("/linux/cgroupsPath", json!("system.slice:a:b"), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!("/../x"), "linux.cgroupsPath"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}),
            "linux.seccomp.listenerPath",
        ),
        ("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]}), "linux.personality.flags"),
        ("/linux/resources/rdma", json!({"mlx": {"hcaHandles": 1}}), "linux.resources.rdma"),
        ("/linux/resources/memory/kernel", json!(1 << 26), "linux.resources.memory.kernel"),
        (
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 1 << 21}]),
            "linux.resources.hugepageLimits[0]",
        ),
        ("/linux/maskedPaths", json!(["relative"]), "linux.maskedPaths[0]"),
        ("/process/user/umask", json!(0o7777), "process.user.umask"),
        (
            "/mounts/-",
            json!({"destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind", "nonsense"]}),
            "mounts[5].options",
        ),
        ("/mounts/-", json!({"destination": "/mnt"}), "mounts[5].type"),
    ];
    let case = |(at, value, field): (&'static str, Value, &'static str), only: bool| {
        let name = format!("refused: {at} = {value}");
        Case::new(name, &[(at, value)], "echo ran").expect(if only {
            Expect::OnlyOursRefuses(field)
        } else {
            Expect::Refused(field)
        })
    };
    both.into_iter().map(|one| case(one, false)).chain(ours.into_iter().map(|one| case(one, true))).collect()
}
