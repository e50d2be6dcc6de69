//! `linux`: namespaces, settings, cgroups; and hooks.

use serde_json::{Value, json};

use super::{Case, Expect};

pub fn cases() -> Vec<Case> {
    let mut cases = namespaces();
    cases.extend(settings());
    cases.extend(resources());
    cases.extend(hooks());
    cases.extend(users());
    cases
}

fn namespaces() -> Vec<Case> {
    let kinds = ["pid", "ipc", "uts", "network", "cgroup", "time"];
    let own = |kind: &str| match kind {
        "network" => std::fs::read_link("/proc/self/ns/net"),
        kind => std::fs::read_link(format!("/proc/self/ns/{kind}")),
    };
    let file = |kind: &str| if kind == "network" { "net".to_owned() } else { kind.to_owned() };
    let mut cases = Vec::new();
    for left_out in kinds {
        let list: Vec<Value> = kinds
            .iter()
            .chain(&["mount"])
            .filter(|kind| **kind != left_out)
            .map(|kind| json!({ "type": kind }))
            .collect();
        let host = own(left_out).unwrap();
        let script =
            format!("test $(readlink /proc/self/ns/{}) = {}; echo $?; hostname", file(left_out), host.display());
        // Without a pid namespace proc shows the host's.
        let mut edits = vec![("/linux/namespaces", json!(list))];
        if left_out == "uts" {
            edits.push(("/hostname", json!(null)));
        }
        let script = if left_out == "uts" { script.replace("; hostname", "") } else { script };
        cases.push(Case::new(format!("no {left_out} namespace"), &edits, &script));
    }
    for kind in ["ipc", "network"] {
        let path = format!("/proc/self/ns/{}", file(kind));
        let list: Vec<Value> = ["pid", "ipc", "uts", "network", "mount"]
            .iter()
            .map(|one| if *one == kind { json!({"type": one, "path": path}) } else { json!({ "type": one }) })
            .collect();
        let script = format!("test $(readlink {path}) = {}; echo $?", own(kind).unwrap().display());
        cases.push(Case::new(
            format!("{kind} namespace of the host by path"),
            &[("/linux/namespaces", json!(list))],
            &script,
        ));
    }
    cases.push(Case::new(
        "time offsets",
        &[
            ("/linux/namespaces/-", json!({"type": "time"})),
            (
                "/linux/timeOffsets",
                json!({"monotonic": {"secs": 1000, "nanosecs": 0}, "boottime": {"secs": 500_000_000}}),
            ),
        ],
        "cut -c1-2 /proc/uptime; sed -E 's/ +/ /g' /proc/self/timens_offsets",
    ));
    cases.push(Case::new("loopback", &[], "cat /proc/net/dev | grep -c lo:; cat /sys/class/net/lo/flags"));
    cases
}

fn settings() -> Vec<Case> {
    let sysctl = |name: &str, value: &str| ("/linux/sysctl", json!({ name: value }));
    vec![
        Case::new("hostname", &[("/hostname", json!("a-long.name"))], "hostname; cat /proc/sys/kernel/hostname"),
        Case::new("domainname", &[("/domainname", json!("dom.ain"))], "cat /proc/sys/kernel/domainname"),
        Case::new("no hostname", &[("/hostname", json!(null))], "true"),
        Case::new("net setting", &[sysctl("net.ipv4.ip_forward", "1")], "cat /proc/sys/net/ipv4/ip_forward"),
        Case::new(
            "net setting with slashes",
            &[sysctl("net/ipv4/ip_unprivileged_port_start", "0")],
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        ),
        Case::new("ipc setting", &[sysctl("kernel.shmmax", "12345")], "cat /proc/sys/kernel/shmmax"),
        Case::new("message queue setting", &[sysctl("fs.mqueue.msg_max", "11")], "cat /proc/sys/fs/mqueue/msg_max"),
        Case::new(
            "setting of several numbers",
            &[sysctl("kernel.sem", "250 32000 32 100")],
            "sed 's/[^0-9]/ /g' /proc/sys/kernel/sem",
        ),
        Case::new("setting of the machine", &[sysctl("kernel.panic", "1")], "true")
            .expect(Expect::Refused("linux.sysctl")),
        Case::new("setting of the machine's memory", &[sysctl("vm.swappiness", "1")], "true")
            .expect(Expect::Refused("linux.sysctl")),
        Case::new("setting that is not there", &[sysctl("net.ipv4.nothing", "1")], "true")
            .expect(Expect::Refused("linux.sysctl")),
        Case::new("setting that leads out", &[sysctl("net/../kernel/panic", "1")], "true")
            .expect(Expect::Refused("linux.sysctl")),
        Case::new(
            "net setting of the host",
            &[
                sysctl("net.ipv4.ip_forward", "0"),
                ("/linux/namespaces", json!([{"type": "mount"}, {"type": "uts"}, {"type": "pid"}])),
            ],
            "true",
        )
        .expect(Expect::Refused("linux.sysctl")),
    ]
}

fn resources() -> Vec<Case> {
    let limit = |path: &'static str, value: Value| [(path, value)];
    let at = |file: &str| format!("cat /sys/fs/cgroup/{file}");
    let mut cases = vec![
        Case::new(
            "memory limit",
            &limit("/linux/resources/memory/limit", json!(67_108_864)),
            &at("memory/memory.limit_in_bytes"),
        ),
        Case::new(
            "no memory limit",
            &limit("/linux/resources/memory/limit", json!(-1)),
            &at("memory/memory.limit_in_bytes"),
        ),
        Case::new(
            "memory reservation",
            &limit("/linux/resources/memory/reservation", json!(33_554_432)),
            &at("memory/memory.soft_limit_in_bytes"),
        ),
        Case::new(
            "swappiness",
            &limit("/linux/resources/memory/swappiness", json!(10)),
            &at("memory/memory.swappiness"),
        ),
        Case::new(
            "no oom killer",
            &limit("/linux/resources/memory/disableOOMKiller", json!(true)),
            "grep oom_kill_disable /sys/fs/cgroup/memory/memory.oom_control",
        ),
        Case::new("cpu shares", &limit("/linux/resources/cpu/shares", json!(512)), &at("cpu/cpu.shares")),
        Case::new(
            "cpu quota",
            &[("/linux/resources/cpu/quota", json!(20_000)), ("/linux/resources/cpu/period", json!(50_000))],
            &at("cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us"),
        ),
        Case::new("no cpu quota", &limit("/linux/resources/cpu/quota", json!(-1)), &at("cpu/cpu.cfs_quota_us")),
        Case::new(
            "cpus",
            &[("/linux/resources/cpu/cpus", json!("0")), ("/linux/resources/cpu/mems", json!("0"))],
            &at("cpuset/cpuset.cpus /sys/fs/cgroup/cpuset/cpuset.mems"),
        ),
        Case::new("pids", &limit("/linux/resources/pids/limit", json!(42)), &at("pids/pids.max")),
        Case::new("no pids limit", &limit("/linux/resources/pids/limit", json!(-1)), &at("pids/pids.max")),
        Case::new(
            "fork beyond the limit",
            // Room for the threads of runc, which are there before the program.
            &limit("/linux/resources/pids/limit", json!(24)),
            "for i in $(seq 30); do sleep 100 & done; echo $?",
        ),
        Case::new(
            "throttled device",
            &limit(
                "/linux/resources/blockIO/throttleReadBpsDevice",
                json!([{"major": 254, "minor": 0, "rate": 1_000_000}]),
            ),
            "grep 1000000 /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device | cut -d: -f1",
        ),
        Case::new(
            "relative cgroup",
            &limit("/linux/cgroupsPath", json!("@id@relative")),
            "cat /proc/self/cgroup | grep -c /",
        ),
        Case::new(
            "absolute cgroup",
            &limit("/linux/cgroupsPath", json!("/@id@absolute")),
            "cat /proc/self/cgroup | grep -c /",
        ),
        Case::new(
            "cgroup of the host seen",
            &[
                ("/linux/cgroupsPath", json!("/@id@")),
                ("/linux/namespaces", json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}])),
            ],
            "grep -E 'pids|freezer|devices' /proc/self/cgroup",
        ),
    ];
    for (name, edits, field) in [
        (
            "unified on version 1",
            vec![("/linux/resources/unified", json!({"memory.max": "1"}))],
            "linux.resources.unified",
        ),
        (
            "swap below memory",
            vec![("/linux/resources/memory/limit", json!(1 << 26)), ("/linux/resources/memory/swap", json!(1 << 25))],
            "linux.resources.memory.swap",
        ),
        ("cpus that are not there", vec![("/linux/resources/cpu/cpus", json!("4000"))], "linux.resources.cpu.cpus"),
        ("too few shares of time", vec![("/linux/resources/cpu/quota", json!(1))], "linux.resources.cpu.quota"),
    ] {
        cases.push(Case::new(name, &edits, "true").expect(Expect::Refused(field)));
    }
    cases
}

fn hooks() -> Vec<Case> {
    let hook = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]);
    let log =
        |name: &str| hook(&format!("echo {name} $(grep -c '\"id\"'; pwd | sed s#.*/case.*#bundle#) >> @bundle@/log"));
    let mut cases = Vec::new();
    for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let mut edit = json!({});
        edit[name] = log(name);
        // Where a hook runs is not told for each kind, so of createContainer only that it ran.
        let edit =
            if name == "createContainer" { json!({name: hook("grep -c '\"id\"' >> @bundle@/log")}) } else { edit };
        cases.push(Case::new(format!("hook {name}"), &[("/hooks", edit)], "echo ran"));
    }
    for name in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let mut edit = json!({});
        edit[name] = hook("exit 3");
        let field = ["prestart", "createRuntime", "createContainer"].into_iter().find(|one| *one == name);
        let case = Case::new(format!("failing hook {name}"), &[("/hooks", edit)], "echo ran");
        cases.push(match field {
            Some("prestart") => case.expect(Expect::Refused("hooks.prestart[0]")),
            Some("createRuntime") => case.expect(Expect::Refused("hooks.createRuntime[0]")),
            Some(_) => case.expect(Expect::Refused("hooks.createContainer[0]")),
            // By then the container is created; that its program did not run is all that can be seen.
            None => case.expect(Expect::Ours("")),
        });
    }
    let start = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "grep -c pid >/tmp/started"], "env": ["PATH=/bin"]}]});
    cases.push(Case::new("hook startContainer", &[("/hooks", start)], "cat /tmp/started"));
    let slow = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]});
    cases.push(Case::new("slow hook", &[("/hooks", slow)], "true").expect(Expect::Refused("hooks.createRuntime[0]")));
    let order = json!({
        "prestart": log("a"), "createRuntime": log("b"), "poststop": log("z"),
    });
    cases.push(Case::new("order of hooks", &[("/hooks", order)], "true"));
    cases
}

fn users() -> Vec<Case> {
    let user = |extra: &[(&'static str, Value)]| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        let mut edits = vec![
            ("/linux/namespaces/-", json!({"type": "user"})),
            ("/linux/uidMappings", map.clone()),
            ("/linux/gidMappings", map),
        ];
        edits.extend_from_slice(extra);
        edits
    };
    let chown: fn(&std::path::Path) = |bundle| {
        for at in ["rootfs", "rootfs/tmp", "rootfs/mnt", "rootfs/data", "rootfs/data/file"] {
            std::os::unix::fs::chown(bundle.join(at), Some(100_000), Some(100_000)).unwrap();
        }
    };
    let idmap = json!({"destination": "/mnt", "type": "bind", "source": "@bundle@/rootfs/etc", "options": ["bind"],
        "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65_536}], "gidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65_536}]});
    let own =
        json!({"destination": "/mnt", "type": "bind", "source": "@bundle@/rootfs/etc", "options": ["bind", "idmap"]});
    vec![
        Case::new(
            "user namespace",
            &user(&[]),
            "id; cat /proc/self/uid_map /proc/self/gid_map; grep Cap /proc/self/status; stat -c %u /data/file",
        )
        .prepare(chown),
        Case::new(
            "user in a user namespace",
            &user(&[("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}))]),
            "id; grep -E 'Uid|Groups' /proc/self/status",
        )
        .prepare(chown),
        Case::new(
            "devices in a user namespace",
            &user(&[]),
            "echo x >/dev/null; ls -l /dev/null | cut -c1-10; dd if=/dev/zero bs=4 count=1 2>/dev/null | grep -c .",
        )
        .prepare(chown),
        Case::new(
            "masks in a user namespace",
            &user(&[
                ("/linux/maskedPaths", json!(["/data/file", "/data/sub"])),
                ("/linux/readonlyPaths", json!(["/proc/sys"])),
            ]),
            "cat /data/file; ls /data/sub; mount | grep -c /proc/sys",
        )
        .prepare(chown),
        Case::new(
            "settings in a user namespace",
            &user(&[("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))]),
            "cat /proc/sys/net/ipv4/ip_forward",
        )
        .prepare(chown),
        Case::new(
            "limits in a user namespace",
            &user(&[("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]))]),
            "grep files /proc/self/limits",
        )
        .prepare(chown),
        Case::new("idmapped mount", &user(&[("/mounts/-", idmap)]), "stat -c %u:%g /mnt/passwd").prepare(chown),
        Case::new("idmapped mount with the container's map", &user(&[("/mounts/-", own)]), "stat -c %u:%g /mnt/passwd")
            .prepare(chown),
        Case::new("a user who is not mapped", &user(&[("/process/user", json!({"uid": 70_000, "gid": 0}))]), "true")
            .expect(Expect::Refused("process.user.uid"))
            .prepare(chown),
    ]
}
