//! What a spec says, in NRI's messages.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::{
    Container, Hook, Hooks, IoPrioClass, LinuxContainer, LinuxDevice, LinuxIoPriority, LinuxNamespace, LinuxNetDevice,
    LinuxPodSandbox, LinuxRdt, LinuxScheduler, LinuxSchedulerFlag, LinuxSchedulerPolicy, Mount, OptionalBool,
    OptionalFileMode, OptionalInt, OptionalRepeatedString, OptionalString, OptionalUInt32, PosixRlimit, User,
};

use super::{limits, security};

/// Adds what the spec of a container says of it.
pub fn container(spec: &Value, into: &mut Container) {
    let process = &spec["process"];
    into.annotations.extend(strings(&spec["annotations"]));
    into.args = words(&process["args"]);
    into.env = words(&process["env"]);
    into.mounts = each(&spec["mounts"], |one| Mount {
        destination: text(&one["destination"]),
        r#type: text(&one["type"]),
        source: text(&one["source"]),
        options: words(&one["options"]),
    });
    into.hooks = spec["hooks"].is_object().then(|| hooks(&spec["hooks"]));
    into.rlimits = each(&process["rlimits"], |one| PosixRlimit {
        r#type: text(&one["type"]),
        hard: one["hard"].as_u64().unwrap_or_default(),
        soft: one["soft"].as_u64().unwrap_or_default(),
    });
    let user = &process["user"];
    into.user = user.is_object().then(|| User {
        uid: number(&user["uid"]),
        gid: number(&user["gid"]),
        additional_gids: each(&user["additionalGids"], number),
    });
    let linux = into.linux.take().unwrap_or_default();
    into.linux = Some(linux_part(spec, linux));
}

/// Adds what the spec of a pod's sandbox says of it.
pub fn sandbox(spec: &Value, into: &mut LinuxPodSandbox) {
    let linux = &spec["linux"];
    into.cgroups_path = text(&linux["cgroupsPath"]);
    into.namespaces = each(&linux["namespaces"], namespace);
    into.resources = linux["resources"].is_object().then(|| limits(&linux["resources"]));
}

fn linux_part(spec: &Value, known: LinuxContainer) -> LinuxContainer {
    let (process, linux) = (&spec["process"], &spec["linux"]);
    let rdt = &linux["intelRdt"];
    LinuxContainer {
        namespaces: each(&linux["namespaces"], namespace),
        devices: each(&linux["devices"], |one| LinuxDevice {
            path: text(&one["path"]),
            r#type: text(&one["type"]),
            major: one["major"].as_i64().unwrap_or_default(),
            minor: one["minor"].as_i64().unwrap_or_default(),
            file_mode: one["fileMode"].as_u64().map(|_| OptionalFileMode { value: number(&one["fileMode"]) }),
            uid: one["uid"].as_u64().map(|_| OptionalUInt32 { value: number(&one["uid"]) }),
            gid: one["gid"].as_u64().map(|_| OptionalUInt32 { value: number(&one["gid"]) }),
        }),
        resources: linux["resources"].is_object().then(|| limits(&linux["resources"])),
        oom_score_adj: process["oomScoreAdj"].as_i64().map(|value| OptionalInt { value }),
        cgroups_path: text(&linux["cgroupsPath"]),
        io_priority: process["ioPriority"].is_object().then(|| io_priority(&process["ioPriority"])),
        seccomp_profile: known.seccomp_profile,
        seccomp_policy: linux["seccomp"].is_object().then(|| security::read(&linux["seccomp"])),
        sysctl: strings(&linux["sysctl"]),
        net_devices: members(&linux["netDevices"], |one| LinuxNetDevice { name: text(&one["name"]) }),
        scheduler: process["scheduler"].is_object().then(|| scheduler(&process["scheduler"])),
        rdt: rdt.is_object().then(|| LinuxRdt {
            clos_id: rdt["closID"].as_str().map(|value| OptionalString { value: value.to_owned() }),
            schemata: rdt["schemata"].is_array().then(|| OptionalRepeatedString { value: words(&rdt["schemata"]) }),
            enable_monitoring: rdt["enableMonitoring"].as_bool().map(|value| OptionalBool { value }),
            remove: false,
        }),
    }
}

fn namespace(one: &Value) -> LinuxNamespace {
    LinuxNamespace { r#type: text(&one["type"]), path: text(&one["path"]) }
}

fn hooks(from: &Value) -> Hooks {
    let of = |name: &str| {
        each(&from[name], |one| Hook {
            path: text(&one["path"]),
            args: words(&one["args"]),
            env: words(&one["env"]),
            timeout: one["timeout"].as_i64().map(|value| OptionalInt { value }),
        })
    };
    Hooks {
        prestart: of("prestart"),
        create_runtime: of("createRuntime"),
        create_container: of("createContainer"),
        start_container: of("startContainer"),
        poststart: of("poststart"),
        poststop: of("poststop"),
    }
}

fn io_priority(from: &Value) -> LinuxIoPriority {
    let class = IoPrioClass::from_str_name(from["class"].as_str().unwrap_or_default()).unwrap_or_default();
    LinuxIoPriority { class: class as i32, priority: signed(&from["priority"]) }
}

fn scheduler(from: &Value) -> LinuxScheduler {
    let policy = LinuxSchedulerPolicy::from_str_name(from["policy"].as_str().unwrap_or_default()).unwrap_or_default();
    let flags = words(&from["flags"]);
    LinuxScheduler {
        policy: policy as i32,
        nice: signed(&from["nice"]),
        priority: signed(&from["priority"]),
        flags: flags
            .iter()
            .filter_map(|flag| LinuxSchedulerFlag::from_str_name(flag))
            .map(|flag| flag as i32)
            .collect(),
        runtime: from["runtime"].as_u64().unwrap_or_default(),
        deadline: from["deadline"].as_u64().unwrap_or_default(),
        period: from["period"].as_u64().unwrap_or_default(),
    }
}

/// The string members of an object.
pub(super) fn strings(from: &Value) -> BTreeMap<String, String> {
    members(from, text)
}

fn members<T>(from: &Value, read: impl Fn(&Value) -> T) -> BTreeMap<String, T> {
    let all = from.as_object().into_iter().flatten();
    all.map(|(key, value)| (key.clone(), read(value))).collect()
}

pub(super) fn each<T>(from: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    from.as_array().into_iter().flatten().map(read).collect()
}

pub(super) fn words(from: &Value) -> Vec<String> {
    each(from, text)
}

pub(super) fn text(from: &Value) -> String {
    from.as_str().unwrap_or_default().to_owned()
}

pub(super) fn number(from: &Value) -> u32 {
    from.as_u64().and_then(|value| u32::try_from(value).ok()).unwrap_or_default()
}

fn signed(from: &Value) -> i32 {
    from.as_i64().and_then(|value| i32::try_from(value).ok()).unwrap_or_default()
}
