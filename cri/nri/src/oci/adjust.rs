//! An adjustment, put into the spec of the container that is being made.

use serde_json::{Map, Value, json};

use crate::{
    api::{
        ContainerAdjustment, Hook, Hooks, IoPrioClass, KeyValue, LinuxContainerAdjustment, LinuxDevice,
        LinuxIoPriority, LinuxMemoryPolicy, LinuxNetDevice, LinuxRdt, LinuxScheduler, LinuxSchedulerFlag,
        LinuxSchedulerPolicy, Mount, MpolFlag, MpolMode,
    },
    merge::removal,
};

use super::{Error, Result, Rules, document, limits::set_limits, refuse, security};

/// Resolves references to CDI devices into the spec; what it fails with names the reference.
pub type Inject<'a> = &'a mut (dyn FnMut(&mut Value, &[String]) -> Result<(), String> + Send);

/// Changes the spec as all plugins together want it.
///
/// # Errors
/// A field that means nothing, or that the node cannot have.
pub fn adjust(spec: &mut Value, wanted: &ContainerAdjustment, rules: &Rules, inject: Inject<'_>) -> Result<()> {
    entries(spec, "annotations", &wanted.annotations, |value| value.as_str().into())?;
    env(spec, &wanted.env)?;
    if !wanted.args.is_empty() {
        document::set(spec, "process/args", wanted.args.clone())?;
    }
    if let Some(wanted) = &wanted.hooks {
        hooks(spec, wanted)?;
    }
    let references: Vec<String> = wanted.cdi_devices.iter().map(|device| device.name.clone()).collect();
    if !references.is_empty() {
        let failed = |reason| Error::Field { field: "CDI_devices".to_owned(), reason };
        inject(spec, &references).map_err(failed)?;
    }
    if let Some(wanted) = &wanted.linux {
        linux(spec, wanted, rules)?;
    }
    mounts(spec, &wanted.mounts)?;
    for limit in &wanted.rlimits {
        if limit.soft > limit.hard {
            return refuse(format!("rlimits[{}]", limit.r#type), "the soft limit is above the hard one");
        }
        let have = document::array(spec, "process/rlimits")?;
        have.retain(|one| one["type"] != limit.r#type.as_str());
        have.push(json!({ "type": limit.r#type, "hard": limit.hard, "soft": limit.soft }));
    }
    Ok(())
}

fn linux(spec: &mut Value, wanted: &LinuxContainerAdjustment, rules: &Rules) -> Result<()> {
    for device in &wanted.devices {
        self::device(spec, device)?;
    }
    if !wanted.cgroups_path.is_empty() {
        document::set(spec, "linux/cgroupsPath", wanted.cgroups_path.as_str())?;
    }
    if let Some(score) = &wanted.oom_score_adj {
        if !(-1000..=1000).contains(&score.value) {
            return refuse("linux.oom_score_adj", format!("{} is not between -1000 and 1000", score.value));
        }
        document::set(spec, "process/oomScoreAdj", score.value)?;
    }
    if let Some(wanted) = &wanted.io_priority {
        io_priority(spec, wanted)?;
    }
    if let Some(wanted) = &wanted.scheduler {
        scheduler(spec, wanted)?;
    }
    if let Some(wanted) = &wanted.seccomp_policy {
        document::set(spec, "linux/seccomp", security::write(wanted)?)?;
    }
    for namespace in &wanted.namespaces {
        let (kind, gone) = removal(&namespace.r#type);
        let have = document::array(spec, "linux/namespaces")?;
        have.retain(|one| one["type"] != kind);
        if !gone {
            let path = namespace.path.as_str();
            have.push(if path.is_empty() { json!({ "type": kind }) } else { json!({ "type": kind, "path": path }) });
        }
    }
    entries(spec, "linux/sysctl", &wanted.sysctl, |value| value.as_str().into())?;
    entries(spec, "linux/netDevices", &wanted.net_devices, |device: &LinuxNetDevice| {
        if device.name.is_empty() { json!({}) } else { json!({ "name": device.name }) }
    })?;
    if let Some(policy) = &wanted.memory_policy {
        memory_policy(spec, policy)?;
    }
    if let Some(wanted) = &wanted.resources {
        set_limits(spec, wanted, rules)?;
        match wanted.blockio_class.as_ref().map(|class| class.value.as_str()) {
            None => {}
            Some("") => document::remove(spec, "linux/resources/blockIO"),
            Some(class) => {
                let reason = format!("{class:?}: the node has no block I/O classes");
                return refuse("linux.resources.blockio_class", reason);
            }
        }
        match wanted.rdt_class.as_ref().map(|class| class.value.as_str()) {
            None => {}
            Some("") => document::remove(spec, "linux/intelRdt"),
            Some(class) => document::set(spec, "linux/intelRdt", json!({ "closID": class }))?,
        }
    }
    wanted.rdt.as_ref().map_or(Ok(()), |wanted| rdt(spec, wanted))
}

/// Members of an object: removals first, then the rest.
fn entries<T>(
    spec: &mut Value,
    path: &str,
    wanted: &std::collections::BTreeMap<String, T>,
    value: impl Fn(&T) -> Value,
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let have = document::object(spec, path)?;
    for (name, _) in wanted.keys().map(|key| removal(key)).filter(|(_, gone)| *gone) {
        have.shift_remove(name);
    }
    for (name, one) in wanted.iter().filter(|(key, _)| !removal(key).1) {
        have.insert(name.clone(), value(one));
    }
    Ok(())
}

/// Variables keep their place; new ones come last.
fn env(spec: &mut Value, wanted: &[KeyValue]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let have = document::array(spec, "process/env")?;
    for one in wanted {
        let (key, gone) = removal(&one.key);
        if key.is_empty() || key.contains(['=', '\0']) {
            return refuse("env", format!("{key:?} is not the name of a variable"));
        }
        let is = |value: &Value| value.as_str().is_some_and(|text| text.split('=').next() == Some(key));
        let place = have.iter().position(is);
        let value = Value::from(format!("{key}={}", one.value));
        match (place, gone) {
            (_, true) => have.retain(|value| !is(value)),
            (Some(place), false) => have[place] = value,
            (None, false) => have.push(value),
        }
    }
    Ok(())
}

fn hooks(spec: &mut Value, wanted: &Hooks) -> Result<()> {
    for (name, hooks) in [
        ("prestart", &wanted.prestart),
        ("createRuntime", &wanted.create_runtime),
        ("createContainer", &wanted.create_container),
        ("startContainer", &wanted.start_container),
        ("poststart", &wanted.poststart),
        ("poststop", &wanted.poststop),
    ] {
        for one in hooks {
            if !one.path.starts_with('/') {
                return refuse(format!("hooks.{name}.path"), format!("{:?} is not absolute", one.path));
            }
            document::array(spec, &format!("hooks/{name}"))?.push(hook(one));
        }
    }
    Ok(())
}

fn hook(from: &Hook) -> Value {
    let mut hook = json!({ "path": from.path });
    for (name, list) in [("args", &from.args), ("env", &from.env)] {
        if !list.is_empty() {
            hook[name] = list.clone().into();
        }
    }
    if let Some(timeout) = &from.timeout {
        hook["timeout"] = timeout.value.into();
    }
    hook
}

/// A device in place of what had its path, and the right to use it.
fn device(spec: &mut Value, from: &LinuxDevice) -> Result<()> {
    let (path, gone) = removal(&from.path);
    let have = document::array(spec, "linux/devices")?;
    have.retain(|one| one["path"] != path);
    if gone {
        return Ok(());
    }
    if !path.starts_with('/') {
        return refuse("linux.devices.path", format!("{path:?} is not absolute"));
    }
    let mut device = json!({ "path": path, "type": from.r#type, "major": from.major, "minor": from.minor });
    let numbers = [
        ("fileMode", from.file_mode.as_ref().map(|mode| mode.value)),
        ("uid", from.uid.as_ref().map(|uid| uid.value)),
        ("gid", from.gid.as_ref().map(|gid| gid.value)),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            device[name] = number.into();
        }
    }
    have.push(device);
    document::array(spec, "linux/resources/devices")?.push(json!({
        "allow": true, "type": from.r#type, "major": from.major, "minor": from.minor, "access": "rwm",
    }));
    Ok(())
}

fn io_priority(spec: &mut Value, wanted: &LinuxIoPriority) -> Result<()> {
    match IoPrioClass::try_from(wanted.class) {
        Ok(IoPrioClass::IoprioClassNone) => document::remove(spec, "process/ioPriority"),
        Ok(class) => {
            let value = json!({ "class": class.as_str_name(), "priority": wanted.priority });
            document::set(spec, "process/ioPriority", value)?;
        }
        Err(_) => return refuse("linux.io_priority.class", format!("{} is no class", wanted.class)),
    }
    Ok(())
}

fn scheduler(spec: &mut Value, wanted: &LinuxScheduler) -> Result<()> {
    let Ok(policy) = LinuxSchedulerPolicy::try_from(wanted.policy) else {
        return refuse("linux.scheduler.policy", format!("{} is no policy", wanted.policy));
    };
    if policy == LinuxSchedulerPolicy::SchedNone {
        document::remove(spec, "process/scheduler");
        return Ok(());
    }
    let mut value = Map::new();
    value.insert("policy".to_owned(), policy.as_str_name().into());
    for (name, number) in [("nice", wanted.nice), ("priority", wanted.priority)] {
        if number != 0 {
            value.insert(name.to_owned(), number.into());
        }
    }
    let mut flags = Vec::new();
    for flag in &wanted.flags {
        match LinuxSchedulerFlag::try_from(*flag) {
            Ok(flag) => flags.push(Value::from(flag.as_str_name())),
            Err(_) => return refuse("linux.scheduler.flags", format!("{flag} is no flag")),
        }
    }
    if !flags.is_empty() {
        value.insert("flags".to_owned(), flags.into());
    }
    for (name, number) in [("runtime", wanted.runtime), ("deadline", wanted.deadline), ("period", wanted.period)] {
        if number != 0 {
            value.insert(name.to_owned(), number.into());
        }
    }
    document::set(spec, "process/scheduler", value)
}

fn memory_policy(spec: &mut Value, wanted: &LinuxMemoryPolicy) -> Result<()> {
    let Ok(mode) = MpolMode::try_from(wanted.mode) else {
        return refuse("linux.memory_policy.mode", format!("{} is no mode", wanted.mode));
    };
    let mut flags = Vec::new();
    for flag in &wanted.flags {
        match MpolFlag::try_from(*flag) {
            Ok(flag) => flags.push(Value::from(flag.as_str_name())),
            Err(_) => return refuse("linux.memory_policy.flags", format!("{flag} is no flag")),
        }
    }
    let mut value = json!({ "mode": mode.as_str_name(), "nodes": wanted.nodes });
    if !flags.is_empty() {
        value["flags"] = flags.into();
    }
    document::set(spec, "linux/memoryPolicy", value)
}

fn rdt(spec: &mut Value, wanted: &LinuxRdt) -> Result<()> {
    if wanted.remove {
        document::remove(spec, "linux/intelRdt");
    }
    if let Some(class) = &wanted.clos_id {
        document::set(spec, "linux/intelRdt/closID", class.value.as_str())?;
    }
    if let Some(schemata) = &wanted.schemata {
        document::set(spec, "linux/intelRdt/schemata", schemata.value.clone())?;
    }
    if let Some(monitor) = &wanted.enable_monitoring {
        document::set(spec, "linux/intelRdt/enableMonitoring", monitor.value)?;
    }
    Ok(())
}

/// Mounts in place of what was mounted there, and all of them from the root outwards.
fn mounts(spec: &mut Value, wanted: &[Mount]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    for mount in wanted {
        let (destination, gone) = removal(&mount.destination);
        if !destination.starts_with('/') {
            return refuse("mounts.destination", format!("{destination:?} is not absolute"));
        }
        let have = document::array(spec, "mounts")?;
        have.retain(|one| one["destination"] != destination);
        if gone {
            continue;
        }
        have.push(json!({
            "destination": destination, "type": mount.r#type, "source": mount.source, "options": mount.options,
        }));
        propagation(spec, &mount.options)?;
    }
    let depth = |mount: &Value| {
        let path = mount["destination"].as_str().unwrap_or_default();
        path.split('/').filter(|part| !part.is_empty() && *part != ".").count()
    };
    document::array(spec, "mounts")?.sort_by_key(depth);
    Ok(())
}

/// A mount that passes later mounts on needs a root file system that does.
fn propagation(spec: &mut Value, options: &[String]) -> Result<()> {
    let last = options.iter().rev().find(|option| matches!(option.as_str(), "rprivate" | "rshared" | "rslave"));
    let now = spec.pointer("/linux/rootfsPropagation").and_then(Value::as_str).unwrap_or_default();
    match last.map(String::as_str) {
        Some("rshared") => document::set(spec, "linux/rootfsPropagation", "rshared"),
        Some("rslave") if !matches!(now, "rshared" | "rslave") => {
            document::set(spec, "linux/rootfsPropagation", "rslave")
        }
        _ => Ok(()),
    }
}
