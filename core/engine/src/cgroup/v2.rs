//! Limits in the hierarchy of version 2.

use std::{fs, io, path::Path, time::Instant};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{PATIENCE, device, pause, set, write};
use crate::error::{Error, Result};

pub(super) fn apply(dir: &Path, resources: &LinuxResources) -> Result<()> {
    if let Some(limits) = resources.memory() {
        memory(dir, limits)?;
    }
    if let Some(limits) = resources.cpu() {
        cpu(dir, limits)?;
    }
    if let Some(pids) = resources.pids() {
        let text = if pids.limit() > 0 { pids.limit().to_string() } else { "max".into() };
        set(dir, "pids.max", &text, "pids.limit")?;
    }
    if let Some(limits) = resources.block_io() {
        block_io(dir, limits)?;
    }
    for (at, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let text = if limit.limit() < 0 { "max".into() } else { limit.limit().to_string() };
        set(dir, &format!("hugetlb.{}.max", limit.page_size()), &text, &format!("hugepageLimits[{at}]"))?;
    }
    if resources
        .network()
        .as_ref()
        .is_some_and(|network| network.class_id().is_some() || network.priorities().is_some())
    {
        return Err(Error::unsupported("linux.resources.network", "cgroups of version 2 have no network controllers"));
    }
    if let Some(rules) = resources.devices() {
        device::apply_v2(dir, rules)?;
    }
    for (file, text) in resources.unified().iter().flatten() {
        let field = format!("unified[{file:?}]");
        if file.contains('/') || !file.contains('.') {
            return Err(Error::invalid(format!("linux.resources.{field}"), "is no file of a cgroup"));
        }
        for line in text.lines() {
            set(dir, file, line, &field)?;
        }
    }
    Ok(())
}

fn max(value: i64) -> String {
    if value == -1 { "max".into() } else { value.to_string() }
}

fn memory(dir: &Path, limits: &LinuxMemory) -> Result<()> {
    let refuse = |field: &str| {
        Err(Error::unsupported(format!("linux.resources.memory.{field}"), "cgroups of version 2 have no such thing"))
    };
    if limits.swappiness().is_some() {
        return refuse("swappiness");
    }
    if limits.disable_oom_killer() == Some(true) {
        return refuse("disableOOMKiller");
    }
    if limits.kernel_tcp().is_some_and(|value| value > 0) {
        return refuse("kernelTCP");
    }
    let limit = limits.limit().filter(|limit| *limit != 0);
    // In the spec swap includes memory, here it does not.
    let swap = match (limits.swap().filter(|swap| *swap != 0), limit) {
        (Some(-1), _) => Some("max".to_owned()),
        (Some(swap), Some(limit)) if limit > 0 && swap >= limit => Some((swap - limit).to_string()),
        (Some(_), Some(limit)) if limit > 0 => {
            return Err(Error::invalid("linux.resources.memory.swap", "is less than memory.limit, which it includes"));
        }
        (Some(_), _) => return Err(Error::invalid("linux.resources.memory.swap", "without memory.limit says nothing")),
        (None, Some(-1)) => Some("max".to_owned()),
        (None, _) => None,
    };
    if let Some(swap) = swap
        && (swap != "max" || dir.join("memory.swap.max").exists())
        && (swap != "0" || dir.join("memory.swap.max").exists())
    {
        set(dir, "memory.swap.max", &swap, "memory.swap")?;
    }
    if let Some(limit) = limit {
        set(dir, "memory.max", &max(limit), "memory.limit")?;
    }
    if let Some(reservation) = limits.reservation().filter(|value| *value != 0) {
        set(dir, "memory.low", &max(reservation), "memory.reservation")?;
    }
    Ok(())
}

/// Shares of 2 to 262144 onto weights of 1 to 10000, so that the default of the one is the default of the other.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

fn cpu(dir: &Path, limits: &LinuxCpu) -> Result<()> {
    for (value, field) in [
        (limits.realtime_period().filter(|value| *value != 0), "cpu.realtimePeriod"),
        (limits.realtime_runtime().filter(|value| *value != 0).map(i64::cast_unsigned), "cpu.realtimeRuntime"),
    ] {
        if value.is_some() {
            return Err(Error::unsupported(
                format!("linux.resources.{field}"),
                "cgroups of version 2 have no such thing",
            ));
        }
    }
    if let Some(idle) = limits.idle() {
        set(dir, "cpu.idle", &idle.to_string(), "cpu.idle")?;
    }
    if let Some(shares) = limits.shares().filter(|shares| *shares != 0 && limits.idle() != Some(1)) {
        set(dir, "cpu.weight", &weight(shares).to_string(), "cpu.shares")?;
    }
    let (quota, period) = (limits.quota().filter(|quota| *quota != 0), limits.period().filter(|period| *period != 0));
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        let text = format!("{quota} {}", period.unwrap_or(100_000));
        set(dir, "cpu.max", &text, if limits.quota().is_some() { "cpu.quota" } else { "cpu.period" })?;
    }
    if let Some(burst) = limits.burst() {
        set(dir, "cpu.max.burst", &burst.to_string(), "cpu.burst")?;
    }
    for (value, file, field) in [(limits.cpus(), "cpuset.cpus", "cpu.cpus"), (limits.mems(), "cpuset.mems", "cpu.mems")]
    {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            set(dir, file, value, field)?;
        }
    }
    Ok(())
}

fn block_io(dir: &Path, limits: &LinuxBlockIo) -> Result<()> {
    if limits.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(Error::unsupported(
            "linux.resources.blockIO.leafWeight",
            "cgroups of version 2 have no such thing",
        ));
    }
    let bfq = dir.join("io.bfq.weight").exists();
    if let Some(weight) = limits.weight().filter(|weight| *weight != 0) {
        // 10..1000 onto 1..10000, where only the general file is there.
        let general = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
        let (file, text) = if bfq { ("io.bfq.weight", weight.to_string()) } else { ("io.weight", general.to_string()) };
        set(dir, file, &text, "blockIO.weight")?;
    }
    for device in limits.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let text = format!("{}:{} {weight}", device.major(), device.minor());
            set(dir, "io.bfq.weight", &text, "blockIO.weightDevice")?;
        }
    }
    for (devices, key, field) in [
        (limits.throttle_read_bps_device(), "rbps", "blockIO.throttleReadBpsDevice"),
        (limits.throttle_write_bps_device(), "wbps", "blockIO.throttleWriteBpsDevice"),
        (limits.throttle_read_iops_device(), "riops", "blockIO.throttleReadIOPSDevice"),
        (limits.throttle_write_iops_device(), "wiops", "blockIO.throttleWriteIOPSDevice"),
    ] {
        for device in devices.iter().flatten() {
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            set(dir, "io.max", &format!("{}:{} {key}={rate}", device.major(), device.minor()), field)?;
        }
    }
    Ok(())
}

/// Gives the controllers down to the parent of `dir`.
pub(super) fn enable(root: &Path, dir: &Path) -> Result<()> {
    let failed = |at: &Path, err| Error::failed(super::FIELD, format!("give controllers below {}", at.display()), err);
    let text = fs::read_to_string(root.join("cgroup.controllers")).map_err(|err| failed(root, err))?;
    let all: Vec<String> = text.split_whitespace().map(|name| format!("+{name}")).collect();
    let way: Vec<&Path> = dir.ancestors().skip(1).take_while(|dir| dir.starts_with(root)).collect();
    for dir in way.into_iter().rev() {
        if write(dir, "cgroup.subtree_control", &all.join(" ")).is_ok() {
            continue;
        }
        // One that can't be given (a realtime process in the way, say) is missing later, if a limit needs it.
        for one in &all {
            match write(dir, "cgroup.subtree_control", one) {
                Err(err) if err.kind() == io::ErrorKind::PermissionDenied => return Err(failed(dir, err)),
                _ => {}
            }
        }
    }
    Ok(())
}

pub(super) fn freeze(dir: &Path, frozen: bool) -> Result<()> {
    let digit = if frozen { "1" } else { "0" };
    let failed =
        |err| Error::failed("cgroup", format!("write {digit} to {}", dir.join("cgroup.freeze").display()), err);
    write(dir, "cgroup.freeze", digit).map_err(failed)?;
    let until = Instant::now() + PATIENCE;
    let reached = format!("frozen {digit}");
    loop {
        let events = fs::read_to_string(dir.join("cgroup.events")).map_err(failed)?;
        if events.lines().any(|line| line == reached) {
            return Ok(());
        }
        if Instant::now() > until {
            write(dir, "cgroup.freeze", "0").map_err(failed)?;
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        let pairs = [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (1_000_000, 10_000)];
        assert_eq!(pairs.map(|(shares, _)| weight(shares)), pairs.map(|(_, weight)| weight));
        assert!((3..262_144).collect::<Vec<u64>>().windows(2).all(|two| weight(two[0]) <= weight(two[1])));
    }
}
