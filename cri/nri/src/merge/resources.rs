//! Limits: which of them a message sets, and what it changes.

use crate::api::{Field, LinuxResources};

use super::owners::{Claim, Conflict, Owners};

/// Claims every limit that `from` sets, or none.
pub(super) fn claim(from: &LinuxResources, owners: &mut Owners, container: &str, plugin: &str) -> Result<(), Conflict> {
    let claims = claims(from);
    claims.iter().try_for_each(|claim| owners.check(container, *claim, plugin))?;
    claims.into_iter().try_for_each(|claim| owners.claim(container, claim, plugin))
}

fn claims(from: &LinuxResources) -> Vec<Claim<'_>> {
    let mut claims: Vec<Claim<'_>> = Vec::new();
    let mut simple = |set: bool, field| claims.extend(set.then_some((field, None)));
    if let Some(memory) = &from.memory {
        simple(memory.limit.is_some(), Field::MemLimit);
        simple(memory.reservation.is_some(), Field::MemReservation);
        simple(memory.swap.is_some(), Field::MemSwapLimit);
        simple(memory.kernel.is_some(), Field::MemKernelLimit);
        simple(memory.kernel_tcp.is_some(), Field::MemTcpLimit);
        simple(memory.swappiness.is_some(), Field::MemSwappiness);
        simple(memory.disable_oom_killer.is_some(), Field::MemDisableOomKiller);
        simple(memory.use_hierarchy.is_some(), Field::MemUseHierarchy);
    }
    if let Some(cpu) = &from.cpu {
        simple(cpu.shares.is_some(), Field::CpuShares);
        simple(cpu.quota.is_some(), Field::CpuQuota);
        simple(cpu.period.is_some(), Field::CpuPeriod);
        simple(cpu.realtime_runtime.is_some(), Field::CpuRealtimeRuntime);
        simple(cpu.realtime_period.is_some(), Field::CpuRealtimePeriod);
        simple(!cpu.cpus.is_empty(), Field::CpuSetCpUs);
        simple(!cpu.mems.is_empty(), Field::CpuSetMems);
    }
    simple(from.blockio_class.is_some(), Field::BlockioClass);
    simple(from.rdt_class.is_some(), Field::RdtClass);
    simple(from.pids.is_some(), Field::PidsLimit);
    let pages = from.hugepage_limits.iter().map(|limit| limit.page_size.as_str());
    claims.extend(pages.map(|size| (Field::HugepageLimits, Some(size))));
    claims.extend(from.unified.keys().map(|file| (Field::CgroupsUnified, Some(file.as_str()))));
    claims
}

/// Changes what `from` sets.
pub(crate) fn overlay(into: &mut LinuxResources, from: &LinuxResources) {
    macro_rules! set {
        ($into:expr, $from:expr, $($field:ident),+) => {
            $(if $from.$field.is_some() { $into.$field = $from.$field.clone(); })+
        };
    }
    if let Some(from) = &from.memory {
        let into = into.memory.get_or_insert_default();
        set!(into, from, limit, reservation, swap, kernel, kernel_tcp, swappiness, disable_oom_killer, use_hierarchy);
    }
    if let Some(from) = &from.cpu {
        let into = into.cpu.get_or_insert_default();
        set!(into, from, shares, quota, period, realtime_runtime, realtime_period);
        for (into, from) in [(&mut into.cpus, &from.cpus), (&mut into.mems, &from.mems)] {
            if !from.is_empty() {
                into.clone_from(from);
            }
        }
    }
    set!(into, from, blockio_class, rdt_class, pids);
    for limit in &from.hugepage_limits {
        into.hugepage_limits.retain(|have| have.page_size != limit.page_size);
        into.hugepage_limits.push(limit.clone());
    }
    into.unified.extend(from.unified.clone());
    into.devices.extend(from.devices.iter().cloned());
}
