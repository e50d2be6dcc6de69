//! Limits, both ways.

use serde_json::{Value, json};

use crate::api::{
    HugepageLimit, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources, OptionalBool, OptionalInt64,
    OptionalUInt64,
};

use super::{Result, Rules, document, refuse};

/// The limits of a spec's `linux.resources`.
pub fn limits(resources: &Value) -> LinuxResources {
    let int = |value: &Value| value.as_i64().map(|value| OptionalInt64 { value });
    let uint = |value: &Value| value.as_u64().map(|value| OptionalUInt64 { value });
    let flag = |value: &Value| value.as_bool().map(|value| OptionalBool { value });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let each = |name: &str| resources[name].as_array().cloned().unwrap_or_default().into_iter();
    let memory = &resources["memory"];
    let cpu = &resources["cpu"];
    LinuxResources {
        memory: memory.is_object().then(|| LinuxMemory {
            limit: int(&memory["limit"]),
            reservation: int(&memory["reservation"]),
            swap: int(&memory["swap"]),
            kernel: int(&memory["kernel"]),
            kernel_tcp: int(&memory["kernelTCP"]),
            swappiness: uint(&memory["swappiness"]),
            disable_oom_killer: flag(&memory["disableOOMKiller"]),
            use_hierarchy: flag(&memory["useHierarchy"]),
        }),
        cpu: cpu.is_object().then(|| LinuxCpu {
            shares: uint(&cpu["shares"]),
            quota: int(&cpu["quota"]),
            period: uint(&cpu["period"]),
            realtime_runtime: int(&cpu["realtimeRuntime"]),
            realtime_period: uint(&cpu["realtimePeriod"]),
            cpus: text(&cpu["cpus"]),
            mems: text(&cpu["mems"]),
        }),
        hugepage_limits: each("hugepageLimits")
            .map(|one| HugepageLimit {
                page_size: text(&one["pageSize"]),
                limit: one["limit"].as_u64().unwrap_or_default(),
            })
            .collect(),
        blockio_class: None,
        rdt_class: None,
        unified: super::read::strings(&resources["unified"]),
        devices: each("devices")
            .map(|one| LinuxDeviceCgroup {
                allow: one["allow"].as_bool().unwrap_or_default(),
                r#type: text(&one["type"]),
                major: int(&one["major"]),
                minor: int(&one["minor"]),
                access: text(&one["access"]),
            })
            .collect(),
        pids: resources["pids"]["limit"].as_i64().map(|limit| LinuxPids { limit }),
    }
}

/// Changes a spec's limits to what `from` sets. A number of 0 sets nothing where the kernel knows no 0.
///
/// # Errors
/// A field that the node cannot have.
pub fn set_limits(spec: &mut Value, from: &LinuxResources, rules: &Rules) -> Result<()> {
    if let Some(from) = &from.memory {
        memory(spec, from, rules)?;
    }
    if let Some(from) = &from.cpu {
        cpu(spec, from)?;
    }
    if rules.hugepages && !from.hugepage_limits.is_empty() {
        let have = document::array(spec, "linux/resources/hugepageLimits")?;
        for limit in &from.hugepage_limits {
            have.retain(|one| one["pageSize"] != limit.page_size.as_str());
            have.push(json!({ "pageSize": limit.page_size, "limit": limit.limit }));
        }
    }
    if !from.unified.is_empty() {
        if !rules.unified {
            return refuse("linux.resources.unified", "the node does not have cgroup version 2");
        }
        let unified = document::object(spec, "linux/resources/unified")?;
        for (file, value) in &from.unified {
            if file.is_empty() || file.starts_with('.') || file.contains(['/', '\0']) {
                return refuse(format!("linux.resources.unified[{file:?}]"), "is not the name of a cgroup file");
            }
            unified.insert(file.clone(), value.as_str().into());
        }
    }
    for rule in &from.devices {
        let mut value = json!({ "allow": rule.allow, "type": rule.r#type, "access": rule.access });
        for (name, number) in [("major", &rule.major), ("minor", &rule.minor)] {
            if let Some(number) = number {
                value[name] = number.value.into();
            }
        }
        document::array(spec, "linux/resources/devices")?.push(value);
    }
    if let Some(pids) = &from.pids {
        document::set(spec, "linux/resources/pids/limit", pids.limit.max(-1))?;
    }
    Ok(())
}

/// As for requests of the kubelet, there is no swap without a word about it.
fn memory(spec: &mut Value, from: &LinuxMemory, rules: &Rules) -> Result<()> {
    let signed = |value: &Option<OptionalInt64>| value.as_ref().map_or(0, |one| one.value);
    let (limit, swap) = (signed(&from.limit), signed(&from.swap));
    if limit > 0 && swap > 0 && swap < limit {
        return refuse("linux.resources.memory.swap", format!("{swap} is less than the memory limit {limit}"));
    }
    let memory = document::object(spec, "linux/resources/memory")?;
    let swap = if swap == 0 { limit } else { swap };
    let numbers = [
        ("limit", limit),
        ("reservation", signed(&from.reservation)),
        ("swap", if rules.swap { swap } else { 0 }),
        ("kernel", signed(&from.kernel)),
        ("kernelTCP", signed(&from.kernel_tcp)),
    ];
    for (name, value) in numbers.into_iter().filter(|(_, value)| *value != 0) {
        memory.insert(name.to_owned(), value.into());
    }
    if let Some(swappiness) = &from.swappiness {
        memory.insert("swappiness".to_owned(), swappiness.value.into());
    }
    for (name, flag) in [("disableOOMKiller", &from.disable_oom_killer), ("useHierarchy", &from.use_hierarchy)] {
        if let Some(flag) = flag {
            memory.insert(name.to_owned(), flag.value.into());
        }
    }
    Ok(())
}

fn cpu(spec: &mut Value, from: &LinuxCpu) -> Result<()> {
    let cpu = document::object(spec, "linux/resources/cpu")?;
    let unsigned = |value: &Option<OptionalUInt64>| value.as_ref().map_or(0, |one| one.value);
    let signed = |value: &Option<OptionalInt64>| value.as_ref().map_or(0, |one| one.value);
    for (name, value) in [
        ("shares", Value::from(unsigned(&from.shares))),
        ("quota", signed(&from.quota).into()),
        ("period", unsigned(&from.period).into()),
        ("realtimeRuntime", signed(&from.realtime_runtime).into()),
        ("realtimePeriod", unsigned(&from.realtime_period).into()),
    ] {
        if value != 0 {
            cpu.insert(name.to_owned(), value);
        }
    }
    for (name, list) in [("cpus", &from.cpus), ("mems", &from.mems)] {
        if !list.is_empty() {
            cpu.insert(name.to_owned(), list.as_str().into());
        }
    }
    Ok(())
}
