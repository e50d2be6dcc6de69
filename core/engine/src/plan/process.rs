//! The process of the spec as a list of steps: who it is, what it may, and what it runs.

use std::{collections::HashMap, ffi::CString, fs, path::Path};

use oci_spec::runtime::{
    Capability, IOPriorityClass, Linux, LinuxIdMapping, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, LinuxSeccomp, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType, Process,
};
use rustix::thread::{Gid, Uid};

use super::{Plan, namespaces::User, text};
use crate::{
    Options,
    child::{Identity, Op, Sets},
    error::{Error, Result},
    seccomp,
    sys::{SchedAttr, Strings},
};

/// A resource limit: the kernel's number, soft, hard, field.
pub(crate) type Limit = (u32, u64, u64, String);

/// Where the process will be.
pub(crate) struct Context<'a> {
    pub(crate) user: User,
    pub(crate) maps: (&'a Option<Vec<LinuxIdMapping>>, &'a Option<Vec<LinuxIdMapping>>),
    pub(crate) init: bool,
}

/// Settings of the container that processes inherit.
pub(super) fn settings(plan: &mut Plan, linux: &Linux) -> Result<()> {
    personality(plan, linux)?;
    memory_policy(plan, linux)
}

fn personality(plan: &mut Plan, linux: &Linux) -> Result<()> {
    const PER_LINUX32: u64 = 8;
    if let Some(personality) = linux.personality() {
        if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            return Err(Error::unsupported("linux.personality.flags", "flags of execution domains"));
        }
        let value = if personality.domain() == LinuxPersonalityDomain::PerLinux32 { PER_LINUX32 } else { 0 };
        plan.program.push("linux.personality", Op::Personality(value));
    }
    Ok(())
}

fn memory_policy(plan: &mut Plan, linux: &Linux) -> Result<()> {
    let Some(policy) = linux.memory_policy() else { return Ok(()) };
    let mut mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    for flag in policy.flags().iter().flatten() {
        mode |= match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        };
    }
    let nodes =
        policy.nodes().as_deref().map(|nodes| bits(nodes, "linux.memoryPolicy.nodes")).transpose()?.unwrap_or_default();
    plan.program.push("linux.memoryPolicy", Op::MemoryPolicy { mode, nodes });
    Ok(())
}

/// A list of numbers and ranges, `0-3,7`, as bits.
pub(crate) fn bits(list: &str, field: &str) -> Result<Vec<u64>> {
    const MOST: usize = 8192;
    let mut words = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = first
            .parse::<usize>()
            .ok()
            .zip(last.parse::<usize>().ok())
            .filter(|(first, last)| first <= last && *last < MOST);
        let (first, last) = range.ok_or_else(|| Error::invalid(field, format!("{part:?} is no number or range")))?;
        for bit in first..=last {
            if words.len() <= bit / 64 {
                words.resize(bit / 64 + 1, 0);
            }
            words[bit / 64] |= 1_u64 << (bit % 64);
        }
    }
    Ok(words)
}

/// Everything about the process up to the wait for its start.
pub(crate) fn steps(
    plan: &mut Plan,
    process: &Process,
    filter: Option<&LinuxSeccomp>,
    options: &mut Options,
    context: &Context<'_>,
) -> Result<()> {
    plan.limits = limits(process)?;
    scheduling(plan, process, context)?;
    let fds = [&options.stdio.stdin, &options.stdio.stdout, &options.stdio.stderr];
    let terminal = process.terminal() == Some(true);
    let fds = fds.map(|fd| fd.as_ref().filter(|_| !terminal).map(std::os::fd::AsRawFd::as_raw_fd));
    plan.program.push("process.user", Op::Stdio { fds, owner: Some(process.user().uid()) });
    labels(plan, process)?;
    let filter = filter.map(seccomp::compile).transpose()?;
    let no_new = process.no_new_privileges() == Some(true);
    if no_new {
        plan.program.push("process.noNewPrivileges", Op::NoNewPrivileges);
    }
    let step = |filter: &seccomp::Filter| Op::Seccomp {
        program: filter.program.clone(),
        flags: filter.flags,
        listener: false,
    };
    if let Some(filter) = filter.as_ref().filter(|_| !no_new) {
        // Only with rights that are given up next can it be installed.
        plan.program.push("linux.seccomp", step(filter));
    }
    identity(plan, process, context)?;
    plan.program.push("process.args", Op::Lookup(candidates(process)?));
    plan.program.push("process", Op::Ready { fifo: options.gate.take() });
    if let Some(filter) = filter.as_ref().filter(|_| no_new) {
        plan.program.push("linux.seccomp", step(filter));
    }
    Ok(())
}

fn identity(plan: &mut Plan, process: &Process, context: &Context<'_>) -> Result<()> {
    let user = process.user();
    for (id, map, name) in [(user.uid(), context.maps.0, "uid"), (user.gid(), context.maps.1, "gid")] {
        if id == u32::MAX {
            return Err(Error::invalid(format!("process.user.{name}"), "is no id"));
        }
        if context.user == User::New && !mapped(id, map) {
            return Err(Error::invalid(
                format!("process.user.{name}"),
                format!("{id} is not in the user namespace's map"),
            ));
        }
    }
    let mut groups = Vec::new();
    for (at, gid) in user.additional_gids().iter().flatten().enumerate() {
        if *gid == u32::MAX || (context.user == User::New && !mapped(*gid, context.maps.1)) {
            return Err(Error::invalid(format!("process.user.additionalGids[{at}]"), format!("{gid} is no id here")));
        }
        groups.push(Gid::from_raw(*gid));
    }
    if let Some(umask) = user.umask() {
        if umask > 0o777 {
            return Err(Error::invalid("process.user.umask", "is above 0777"));
        }
        plan.program.push("process.user.umask", Op::Umask(umask));
    } else if context.init {
        plan.program.push("process.user.umask", Op::Umask(0o022));
    }
    let sets = capabilities(process);
    plan.program.push("process.capabilities.bounding", Op::BoundingSet(sets));
    let cwd = process.cwd();
    if !cwd.is_absolute() {
        return Err(Error::invalid("process.cwd", "is not absolute"));
    }
    let cwd = super::path(cwd, "process.cwd")?;
    plan.program.push("process.cwd", Op::Chdir { cwd: cwd.clone(), early: true });
    let who = Identity { uid: Uid::from_raw(user.uid()), gid: Gid::from_raw(user.gid()), groups: Some(groups) };
    plan.program.push("process.user", Op::Identity(who));
    plan.program.push("process.cwd", Op::Chdir { cwd, early: false });
    plan.program.push("process.capabilities", Op::Capabilities(sets));
    if home(process).is_none() {
        plan.program.push("process.env", Op::Home(user.uid()));
    }
    Ok(())
}

fn mapped(id: u32, map: &Option<Vec<LinuxIdMapping>>) -> bool {
    map.iter().flatten().any(|one| id.checked_sub(one.container_id()).is_some_and(|offset| offset < one.size()))
}

fn capabilities(process: &Process) -> Sets {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(40);
    let mut sets = Sets { last, ..Sets::default() };
    if let Some(wanted) = process.capabilities() {
        let bits = |set: &Option<std::collections::HashSet<Capability>>| {
            set.iter()
                .flatten()
                .map(|one| number(*one))
                .filter(|number| *number <= last)
                .fold(0, |bits, number| bits | 1_u64 << number)
        };
        sets.bounding = bits(wanted.bounding());
        sets.effective = bits(wanted.effective());
        sets.permitted = bits(wanted.permitted());
        sets.inheritable = bits(wanted.inheritable());
        sets.ambient = bits(wanted.ambient());
    }
    sets
}

/// The kernel's number of a capability.
fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

fn limits(process: &Process) -> Result<Vec<Limit>> {
    let mut limits: Vec<Limit> = Vec::new();
    for (at, limit) in process.rlimits().iter().flatten().enumerate() {
        let number = match limit.typ() {
            PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
            PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
            PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
            PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
            PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
            PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
            PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
            PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
            PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
            PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
            PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
            PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
            PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
            PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
            PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
            PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
        };
        let field = format!("process.rlimits[{at}]");
        if limits.iter().any(|(other, ..)| *other == number) {
            return Err(Error::invalid(field, format!("{} is set twice", limit.typ())));
        }
        limits.push((number, limit.soft(), limit.hard(), field));
    }
    Ok(limits)
}

fn scheduling(plan: &mut Plan, process: &Process, context: &Context<'_>) -> Result<()> {
    if let Some(io) = process.io_priority() {
        let class = match io.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = i32::try_from(io.priority()).ok().filter(|level| (0..8).contains(level));
        let level = level.ok_or_else(|| Error::invalid("process.ioPriority.priority", "is not between 0 and 7"))?;
        plan.program.push("process.ioPriority", Op::IoPriority(class << 13 | level));
    }
    if let Some(scheduler) = process.scheduler() {
        let policy = match scheduler.policy() {
            LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
            LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
            LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
            LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
            LinuxSchedulerPolicy::SchedIso => return Err(Error::unsupported("process.scheduler.policy", "SCHED_ISO")),
            LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
            LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
        };
        let mut flags = 0;
        for flag in scheduler.flags().iter().flatten() {
            flags |= match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            };
        }
        let priority = scheduler.priority().unwrap_or(0);
        let priority =
            u32::try_from(priority).map_err(|_| Error::invalid("process.scheduler.priority", "is negative"))?;
        let attr = SchedAttr {
            size: 0,
            policy: policy.cast_unsigned(),
            flags,
            nice: scheduler.nice().unwrap_or(0),
            priority,
            runtime: scheduler.runtime().unwrap_or(0),
            deadline: scheduler.deadline().unwrap_or(0),
            period: scheduler.period().unwrap_or(0),
        };
        plan.program.push("process.scheduler", Op::Scheduler(attr));
    }
    if let Some(affinity) = process.exec_cpu_affinity().as_ref().filter(|_| !context.init) {
        let last = affinity.cpu_affinity_final().as_ref().or(affinity.initial().as_ref());
        if let Some(list) = last {
            let field = "process.execCPUAffinity";
            plan.program.push(field, Op::Affinity(bits(list, field)?));
        }
    }
    Ok(())
}

pub(super) fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn labels(plan: &mut Plan, process: &Process) -> Result<()> {
    if let Some(profile) = process.apparmor_profile().as_ref().filter(|profile| !profile.is_empty()) {
        if !has_apparmor() {
            return Err(Error::unsupported("process.apparmorProfile", "AppArmor is not enabled"));
        }
        let stacked = Path::new("/proc/self/attr/apparmor/exec").exists();
        let attribute = if stacked { c"self/attr/apparmor/exec" } else { c"self/attr/exec" };
        let text = format!("exec {profile}").into_bytes();
        plan.program.push("process.apparmorProfile", Op::Label { attribute: attribute.into(), text });
    }
    if let Some(label) = process.selinux_label().as_ref().filter(|label| !label.is_empty()) {
        if !has_selinux() {
            return Err(Error::unsupported("process.selinuxLabel", "SELinux is not enabled"));
        }
        let op = Op::Label { attribute: c"self/attr/exec".into(), text: label.clone().into_bytes() };
        plan.program.push("process.selinuxLabel", op);
    }
    Ok(())
}

/// What is in the environment of this name, if anything.
fn home(process: &Process) -> Option<&str> {
    let value = process.env().iter().flatten().rev().find_map(|one| one.strip_prefix("HOME="));
    value.filter(|home| !home.is_empty())
}

fn args(process: &Process) -> Result<&[String]> {
    match process.args().as_deref() {
        Some(args) if args.first().is_some_and(|first| !first.is_empty()) => Ok(args),
        _ => Err(Error::invalid("process.args", "is empty")),
    }
}

/// Where the program may be: a name without a slash is looked for in the container's own `PATH`.
fn candidates(process: &Process) -> Result<Vec<CString>> {
    let name = &args(process)?[0];
    if name.contains('/') {
        return Ok(vec![text(name, "process.args[0]")?]);
    }
    let path = process.env().iter().flatten().rev().find_map(|one| one.strip_prefix("PATH=")).unwrap_or_default();
    let dirs = path.split(':').filter(|dir| dir.starts_with('/'));
    dirs.map(|dir| text(&format!("{dir}/{name}"), "process.env")).collect()
}

/// The environment: of a name that is there twice, the last counts.
fn environment(process: &Process) -> Result<Vec<CString>> {
    let mut at_name: HashMap<&str, usize> = HashMap::new();
    let mut list: Vec<Option<CString>> = Vec::new();
    for (at, one) in process.env().iter().flatten().enumerate() {
        let field = format!("process.env[{at}]");
        let name = one.split_once('=').map(|(name, _)| name).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Error::invalid(&*field, "is not NAME=VALUE"))?;
        if let Some(before) = at_name.insert(name, list.len()) {
            list[before] = None;
        }
        list.push(Some(text(one, &field)?));
    }
    if home(process).is_none()
        && let Some(at) = at_name.get("HOME")
    {
        list[*at] = None;
    }
    Ok(list.into_iter().flatten().collect())
}

/// The last step of all.
pub(crate) fn exec(plan: &mut Plan, process: &Process, options: &Options) -> Result<()> {
    let mut argv = Vec::new();
    for (at, one) in args(process)?.iter().enumerate() {
        argv.push(text(one, &format!("process.args[{at}]"))?);
    }
    let envp = Strings::new(environment(process)?);
    let home = home(process).is_none();
    plan.home_slots = if home { envp.slots() } else { 0 };
    plan.program
        .push("process.args", Op::Exec { argv: Strings::new(argv), envp, preserve: options.preserve_fds, home });
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn process(value: serde_json::Value) -> Process {
        let mut whole = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}});
        whole.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let twice = process(json!({"env": ["A=1", "B=2", "A=3", "HOME="]}));
        assert_eq!(environment(&twice).unwrap(), [c"B=2".into(), CString::from(c"A=3")]);
        for bad in ["A", "=x", "", "A=\u{0}"] {
            assert!(environment(&process(json!({"env": [bad]}))).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn programs_are_looked_for_in_the_container() {
        let named = process(json!({"args": ["x"], "env": ["PATH=/a:rel::/b"]}));
        assert_eq!(candidates(&named).unwrap(), [CString::from(c"/a/x"), c"/b/x".into()]);
        assert!(candidates(&process(json!({"args": ["x"]}))).unwrap().is_empty());
        assert!(candidates(&process(json!({"args": [""]}))).is_err());
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(bits("0-2, 65", "f").unwrap(), [7, 2]);
        for bad in ["a", "3-1", "-1", "99999"] {
            assert!(bits(bad, "f").is_err(), "{bad}");
        }
    }
}
