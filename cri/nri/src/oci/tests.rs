//! Adjustments in specs, and what is read from them.

use serde_json::{Value, json};

use super::*;
use crate::api::{
    CdiDevice, Container, ContainerAdjustment, Hook, Hooks, HugepageLimit, IoPrioClass, KeyValue, LinuxContainer,
    LinuxContainerAdjustment, LinuxCpu, LinuxDevice, LinuxIoPriority, LinuxMemory, LinuxMemoryPolicy, LinuxNamespace,
    LinuxNetDevice, LinuxPids, LinuxRdt, LinuxResources, LinuxScheduler, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    LinuxSeccomp, LinuxSyscall, Mount, MpolFlag, MpolMode, OptionalBool, OptionalFileMode, OptionalInt, OptionalInt64,
    OptionalRepeatedString, OptionalString, OptionalUInt32, OptionalUInt64, PosixRlimit,
};

const RULES: Rules = Rules { swap: true, hugepages: true, unified: true };

type Adjustment = ContainerAdjustment;

fn linux(linux: LinuxContainerAdjustment) -> Adjustment {
    Adjustment { linux: Some(linux), ..Adjustment::default() }
}

fn limits_of(resources: LinuxResources) -> Adjustment {
    linux(LinuxContainerAdjustment { resources: Some(resources), ..Default::default() })
}

fn text(value: &str) -> String {
    value.to_owned()
}

fn apply(spec: Value, wanted: &Adjustment, rules: &Rules) -> Result<Value, String> {
    let mut spec = spec;
    let mut inject = |spec: &mut Value, names: &[String]| -> Result<(), String> {
        if names.iter().any(|name| name == "unknown") {
            return Err("unknown: no such device".to_owned());
        }
        spec["injected"] = names.to_vec().into();
        Ok(())
    };
    adjust(&mut spec, wanted, rules, &mut inject).map_err(|error| error.to_string())?;
    Ok(spec)
}

/// Applies `wanted` to a spec and compares the member at `pointer`.
fn check(before: Value, wanted: Adjustment, pointer: &str, expected: Value) {
    let after = apply(before, &wanted, &RULES).unwrap();
    assert_eq!(after.pointer(pointer).cloned().unwrap_or_default(), expected, "{wanted:?}");
}

#[test]
fn general_members() {
    let pair = |key: &str, value: &str| KeyValue { key: text(key), value: text(value) };
    check(
        json!({ "process": { "env": ["A=1", "B=2", "C=3"] } }),
        Adjustment { env: vec![pair("B", "x=y"), pair("-C", ""), pair("D", "4")], ..Default::default() },
        "/process/env",
        json!(["A=1", "B=x=y", "D=4"]),
    );
    check(
        json!({ "annotations": { "keep": "1", "gone": "2" } }),
        Adjustment {
            annotations: [(text("-gone"), text("")), (text("-back"), text("")), (text("back"), text("3"))].into(),
            ..Default::default()
        },
        "/annotations",
        json!({ "keep": "1", "back": "3" }),
    );
    check(json!({}), Adjustment { args: vec![text("a")], ..Default::default() }, "/process/args", json!(["a"]));
    let hook = Hook { path: text("/h"), args: vec![text("h")], timeout: Some(OptionalInt { value: 5 }), env: vec![] };
    check(
        json!({ "hooks": { "createRuntime": [{ "path": "/old" }] } }),
        Adjustment { hooks: Some(Hooks { create_runtime: vec![hook], ..Hooks::default() }), ..Default::default() },
        "/hooks/createRuntime",
        json!([{ "path": "/old" }, { "path": "/h", "args": ["h"], "timeout": 5 }]),
    );
    check(
        json!({ "process": { "rlimits": [{ "type": "RLIMIT_CORE", "hard": 1, "soft": 1 }] } }),
        Adjustment {
            rlimits: vec![PosixRlimit { r#type: text("RLIMIT_CORE"), hard: 3, soft: 2 }],
            ..Default::default()
        },
        "/process/rlimits",
        json!([{ "type": "RLIMIT_CORE", "hard": 3, "soft": 2 }]),
    );
    check(
        json!({}),
        Adjustment { cdi_devices: vec![CdiDevice { name: text("v/c=d") }], ..Default::default() },
        "/injected",
        json!(["v/c=d"]),
    );
}

#[test]
fn mounts_replace_and_are_in_order() {
    let mount = |destination: &str, options: &[&str]| Mount {
        destination: text(destination),
        r#type: text("bind"),
        source: text("/s"),
        options: options.iter().map(|option| text(option)).collect(),
    };
    let before = json!({ "mounts": [
        { "destination": "/a/b" }, { "destination": "/" }, { "destination": "/gone" }, { "destination": "/a" },
    ] });
    let wanted = Adjustment {
        mounts: vec![mount("/a", &["rbind", "rslave"]), mount("-/gone", &[]), mount("/z/y/x", &["rbind"])],
        ..Default::default()
    };
    let after = apply(before, &wanted, &RULES).unwrap();
    let order: Vec<_> = after["mounts"].as_array().unwrap().iter().map(|one| one["destination"].clone()).collect();
    assert_eq!(order, ["/", "/a", "/a/b", "/z/y/x"]);
    assert_eq!(after["mounts"][1]["options"], json!(["rbind", "rslave"]));
    assert_eq!(after["linux"]["rootfsPropagation"], "rslave");
}

#[test]
fn linux_members() {
    let of = |linux: LinuxContainerAdjustment| self::linux(linux);
    let device = LinuxDevice {
        path: text("/dev/x"),
        r#type: text("c"),
        major: 1,
        minor: 3,
        file_mode: Some(OptionalFileMode { value: 0o600 }),
        uid: Some(OptionalUInt32 { value: 7 }),
        gid: None,
    };
    let with_device = of(LinuxContainerAdjustment { devices: vec![device], ..Default::default() });
    let expected = json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 384, "uid": 7 });
    check(json!({ "linux": { "devices": [{ "path": "/dev/x" }] } }), with_device.clone(), "/linux/devices/0", expected);
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" });
    check(json!({}), with_device, "/linux/resources/devices/0", rule);
    let gone = LinuxDevice { path: text("-/dev/x"), ..LinuxDevice::default() };
    check(
        json!({ "linux": { "devices": [{ "path": "/dev/x" }] } }),
        of(LinuxContainerAdjustment { devices: vec![gone], ..Default::default() }),
        "/linux/devices",
        json!([]),
    );
    let namespace = |kind: &str, path: &str| LinuxNamespace { r#type: text(kind), path: text(path) };
    let namespaces = vec![namespace("network", "/n"), namespace("-ipc", ""), namespace("user", "")];
    check(
        json!({ "linux": { "namespaces": [{ "type": "ipc" }, { "type": "network" }, { "type": "pid" }] } }),
        of(LinuxContainerAdjustment { namespaces, ..Default::default() }),
        "/linux/namespaces",
        json!([{ "type": "pid" }, { "type": "network", "path": "/n" }, { "type": "user" }]),
    );
    check(
        json!({ "linux": { "sysctl": { "a": "1", "b": "2" } } }),
        of(LinuxContainerAdjustment {
            sysctl: [(text("-a"), text("")), (text("c"), text("3"))].into(),
            ..Default::default()
        }),
        "/linux/sysctl",
        json!({ "b": "2", "c": "3" }),
    );
    check(
        json!({}),
        of(LinuxContainerAdjustment {
            net_devices: [(text("eth1"), LinuxNetDevice { name: text("net1") })].into(),
            ..Default::default()
        }),
        "/linux/netDevices",
        json!({ "eth1": { "name": "net1" } }),
    );
    check(
        json!({}),
        of(LinuxContainerAdjustment { cgroups_path: text("/x"), ..Default::default() }),
        "/linux/cgroupsPath",
        json!("/x"),
    );
    check(
        json!({}),
        of(LinuxContainerAdjustment { oom_score_adj: Some(OptionalInt { value: -5 }), ..Default::default() }),
        "/process/oomScoreAdj",
        json!(-5),
    );
}

#[test]
fn scheduling_and_memory_policy() {
    let of = |linux: LinuxContainerAdjustment| self::linux(linux);
    let class = |class: IoPrioClass| {
        let priority = LinuxIoPriority { class: class as i32, priority: 4 };
        of(LinuxContainerAdjustment { io_priority: Some(priority), ..Default::default() })
    };
    let expected = json!({ "class": "IOPRIO_CLASS_BE", "priority": 4 });
    check(json!({}), class(IoPrioClass::IoprioClassBe), "/process/ioPriority", expected);
    let before = json!({ "process": { "ioPriority": {} } });
    check(before, class(IoPrioClass::IoprioClassNone), "/process/ioPriority", Value::Null);
    let scheduler = LinuxScheduler {
        policy: LinuxSchedulerPolicy::SchedDeadline as i32,
        flags: vec![LinuxSchedulerFlag::SchedFlagResetOnFork as i32],
        runtime: 1,
        deadline: 2,
        period: 3,
        ..LinuxScheduler::default()
    };
    check(
        json!({}),
        of(LinuxContainerAdjustment { scheduler: Some(scheduler), ..Default::default() }),
        "/process/scheduler",
        json!({
            "policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            "runtime": 1, "deadline": 2, "period": 3,
        }),
    );
    let policy = LinuxMemoryPolicy {
        mode: MpolMode::MpolBind as i32,
        nodes: text("0-1"),
        flags: vec![MpolFlag::MpolFStaticNodes as i32],
    };
    check(
        json!({}),
        of(LinuxContainerAdjustment { memory_policy: Some(policy), ..Default::default() }),
        "/linux/memoryPolicy",
        json!({ "mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"] }),
    );
    let rdt = LinuxRdt {
        clos_id: Some(OptionalString { value: text("gold") }),
        schemata: Some(OptionalRepeatedString { value: vec![text("L3:0=f")] }),
        enable_monitoring: Some(OptionalBool { value: true }),
        remove: true,
    };
    check(
        json!({ "linux": { "intelRdt": { "l3CacheSchema": "old" } } }),
        of(LinuxContainerAdjustment { rdt: Some(rdt), ..Default::default() }),
        "/linux/intelRdt",
        json!({ "closID": "gold", "schemata": ["L3:0=f"], "enableMonitoring": true }),
    );
}

fn some_limits() -> LinuxResources {
    let int = |value| Some(OptionalInt64 { value });
    let uint = |value| Some(OptionalUInt64 { value });
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: int(100),
            reservation: int(50),
            swap: int(200),
            swappiness: uint(0),
            disable_oom_killer: Some(OptionalBool { value: true }),
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu { shares: uint(2), quota: int(-1), period: uint(5), cpus: text("0"), ..Default::default() }),
        hugepage_limits: vec![HugepageLimit { page_size: text("2MB"), limit: 9 }],
        unified: [(text("memory.high"), text("1"))].into(),
        pids: Some(LinuxPids { limit: 12 }),
        ..LinuxResources::default()
    }
}

#[test]
fn limits_are_set_and_read() {
    let after = apply(json!({}), &limits_of(some_limits()), &RULES).unwrap();
    let expected = json!({
        "memory": { "limit": 100, "reservation": 50, "swap": 200, "swappiness": 0, "disableOOMKiller": true },
        "cpu": { "shares": 2, "quota": -1, "period": 5, "cpus": "0" },
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 9 }],
        "unified": { "memory.high": "1" },
        "pids": { "limit": 12 },
    });
    assert_eq!(after["linux"]["resources"], expected);
    assert_eq!(limits(&after["linux"]["resources"]), some_limits());
}

#[test]
fn limits_follow_the_rules_of_the_node() {
    let memory = |limit, swap| LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(OptionalInt64 { value: limit }),
            swap: Some(OptionalInt64 { value: swap }),
            ..LinuxMemory::default()
        }),
        ..LinuxResources::default()
    };
    let none = Rules { swap: false, hugepages: false, unified: false };
    for (wanted, rules, expected) in [
        (memory(5, 0), RULES, Ok(json!({ "memory": { "limit": 5, "swap": 5 } }))),
        (memory(5, 9), RULES, Ok(json!({ "memory": { "limit": 5, "swap": 9 } }))),
        (memory(5, 9), none, Ok(json!({ "memory": { "limit": 5 } }))),
        (memory(5, 3), RULES, Err("linux.resources.memory.swap: 3 is less than the memory limit 5")),
        (
            LinuxResources { hugepage_limits: some_limits().hugepage_limits, ..Default::default() },
            none,
            Ok(Value::Null),
        ),
        (
            LinuxResources { unified: some_limits().unified, ..Default::default() },
            none,
            Err("linux.resources.unified: the node does not have cgroup version 2"),
        ),
        (
            LinuxResources { unified: [(text("../x"), text("1"))].into(), ..Default::default() },
            RULES,
            Err("linux.resources.unified[\"../x\"]: is not the name of a cgroup file"),
        ),
        (
            LinuxResources { pids: Some(LinuxPids { limit: -7 }), ..Default::default() },
            RULES,
            Ok(json!({ "pids": { "limit": -1 } })),
        ),
        (
            LinuxResources { rdt_class: Some(OptionalString { value: text("gold") }), ..Default::default() },
            RULES,
            Ok(Value::Null),
        ),
        (
            LinuxResources { blockio_class: Some(OptionalString { value: text("slow") }), ..Default::default() },
            RULES,
            Err("linux.resources.blockio_class: \"slow\": the node has no block I/O classes"),
        ),
    ] {
        let after = apply(json!({}), &limits_of(wanted.clone()), &rules);
        let after = after.map(|spec| spec["linux"]["resources"].clone());
        assert_eq!(after, expected.map_err(text), "{wanted:?}");
    }
}

#[test]
fn what_means_nothing_is_refused_and_named() {
    let hook = Hook { path: text("h"), ..Hook::default() };
    for (wanted, field) in [
        (Adjustment { env: vec![KeyValue { key: text("a=b"), value: text("") }], ..Default::default() }, "env"),
        (
            Adjustment { hooks: Some(Hooks { poststop: vec![hook], ..Hooks::default() }), ..Default::default() },
            "hooks.poststop.path",
        ),
        (
            Adjustment { mounts: vec![Mount { destination: text("x"), ..Mount::default() }], ..Default::default() },
            "mounts.destination",
        ),
        (Adjustment { cdi_devices: vec![CdiDevice { name: text("unknown") }], ..Default::default() }, "CDI_devices"),
        (
            Adjustment {
                rlimits: vec![PosixRlimit { r#type: text("RLIMIT_CPU"), hard: 1, soft: 2 }],
                ..Default::default()
            },
            "rlimits[RLIMIT_CPU]",
        ),
        (
            linux(LinuxContainerAdjustment { seccomp_policy: Some(LinuxSeccomp::default()), ..Default::default() }),
            "linux.seccomp_policy.default_action",
        ),
        (
            linux(LinuxContainerAdjustment { oom_score_adj: Some(OptionalInt { value: 1001 }), ..Default::default() }),
            "linux.oom_score_adj",
        ),
        (
            linux(LinuxContainerAdjustment {
                scheduler: Some(LinuxScheduler { policy: 99, ..Default::default() }),
                ..Default::default()
            }),
            "linux.scheduler.policy",
        ),
        (
            linux(LinuxContainerAdjustment {
                devices: vec![LinuxDevice { path: text("dev"), ..LinuxDevice::default() }],
                ..Default::default()
            }),
            "linux.devices.path",
        ),
    ] {
        let said = apply(json!({}), &wanted, &RULES).unwrap_err();
        assert!(said.starts_with(&format!("{field}: ")), "{said}");
    }
}

#[test]
fn a_spec_is_read_and_what_is_written_is_read_back() {
    let call = LinuxSyscall {
        names: vec![text("mount")],
        action: text("SCMP_ACT_ERRNO"),
        errno_ret: Some(OptionalUInt32 { value: 1 }),
        args: vec![],
    };
    let seccomp = LinuxSeccomp {
        default_action: text("SCMP_ACT_ALLOW"),
        default_errno: None,
        architectures: vec![text("SCMP_ARCH_X86_64")],
        flags: vec![],
        syscalls: vec![call],
        ..LinuxSeccomp::default()
    };
    let wanted = LinuxContainerAdjustment { seccomp_policy: Some(seccomp.clone()), ..Default::default() };
    let before = json!({
        "annotations": { "a": "1" },
        "process": {
            "args": ["sh"], "env": ["A=1"], "user": { "uid": 5, "gid": 6, "additionalGids": [7] }, "oomScoreAdj": 3,
            "rlimits": [{ "type": "RLIMIT_CORE", "hard": 2, "soft": 1 }],
        },
        "mounts": [{ "destination": "/x", "type": "bind", "source": "/s", "options": ["ro"] }],
        "linux": { "cgroupsPath": "/c", "namespaces": [{ "type": "pid" }], "sysctl": { "k": "v" } },
    });
    let spec = apply(before, &linux(wanted), &RULES).unwrap();
    let mut read = Container { linux: Some(LinuxContainer::default()), ..Container::default() };
    container(&spec, &mut read);
    assert_eq!((read.args.as_slice(), read.env.as_slice()), ([text("sh")].as_slice(), [text("A=1")].as_slice()));
    let user = read.user.unwrap();
    assert_eq!((user.uid, user.gid, user.additional_gids), (5, 6, vec![7]));
    assert_eq!(read.mounts[0].options, ["ro"]);
    assert_eq!(read.rlimits[0].hard, 2);
    assert_eq!(read.annotations[&text("a")], "1");
    let linux = read.linux.unwrap();
    assert_eq!(linux.oom_score_adj, Some(OptionalInt { value: 3 }));
    assert_eq!(linux.cgroups_path, "/c");
    assert_eq!(linux.sysctl[&text("k")], "v");
    assert_eq!(linux.seccomp_policy, Some(seccomp));
}

#[test]
fn any_document_is_read_without_harm() {
    for spec in [json!(null), json!([1]), json!({ "process": 7, "linux": "x", "mounts": {}, "hooks": [1] })] {
        let mut read = Container::default();
        container(&spec, &mut read);
        assert_eq!(read.args.len(), 0);
    }
}
