//! Limits in the hierarchies of version 1.

use std::{fs, io, path::Path, time::Instant};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{Cgroup, PATIENCE, device, pause, set, write};
use crate::error::{Error, Result};

pub(super) fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    let dir = |controller: &str, field: &str| {
        let missing = || {
            Error::unsupported(
                format!("linux.resources.{field}"),
                format!("the {controller} controller is not mounted"),
            )
        };
        cgroup.of(controller).ok_or_else(missing)
    };
    if let Some(limits) = resources.memory()
        && *limits != LinuxMemory::default()
    {
        memory(dir("memory", "memory")?, limits)?;
    }
    if let Some(limits) = resources.cpu() {
        cpu(&dir, limits)?;
    }
    if let Some(pids) = resources.pids() {
        let text = if pids.limit() > 0 { pids.limit().to_string() } else { "max".into() };
        set(dir("pids", "pids")?, "pids.max", &text, "pids.limit")?;
    }
    if let Some(limits) = resources.block_io() {
        block_io(dir("blkio", "blockIO")?, limits)?;
    }
    for (at, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("hugepageLimits[{at}]");
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        set(dir("hugetlb", &field)?, &file, &limit.limit().to_string(), &field)?;
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            set(dir("net_cls", "network.classID")?, "net_cls.classid", &class.to_string(), "network.classID")?;
        }
        for priority in network.priorities().iter().flatten() {
            let text = format!("{} {}", priority.name(), priority.priority());
            set(dir("net_prio", "network.priorities")?, "net_prio.ifpriomap", &text, "network.priorities")?;
        }
    }
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(Error::unsupported("linux.resources.unified", "this machine's cgroups are of version 1"));
    }
    if let Some(rules) = resources.devices() {
        device::apply_v1(dir("devices", "devices")?, rules)?;
    }
    Ok(())
}

fn memory(dir: &Path, limits: &LinuxMemory) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    if let (Some(limit), Some(swap)) = (limits.limit(), limits.swap())
        && limit > 0
        && swap > 0
        && swap < limit
    {
        return Err(Error::invalid("linux.resources.memory.swap", "is less than memory.limit, which it includes"));
    }
    let text = |value: i64| value.to_string();
    // No limit for memory with one for both makes no sense to the kernel.
    let swap = limits.swap().filter(|swap| *swap != 0).or_else(|| limits.limit().filter(|limit| *limit == -1));
    let swap = swap.filter(|_| dir.join(SWAP).exists() || limits.swap().is_some_and(|swap| swap != 0 && swap != -1));
    let limit = limits.limit().filter(|limit| *limit != 0);
    match (limit, swap) {
        (Some(limit), Some(swap)) => {
            // The one may never be above the other, so which comes first depends on what is set now.
            let now =
                fs::read_to_string(dir.join(LIMIT)).ok().and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
            let both = fs::read_to_string(dir.join(SWAP))
                .ok()
                .and_then(|text| text.trim().parse::<i64>().ok())
                .unwrap_or(i64::MAX);
            let swap_first =
                swap == -1 || (limit != -1 && both < limit) || (swap > both && now <= both && limit > both);
            let order = if swap_first {
                [(SWAP, swap, "swap"), (LIMIT, limit, "limit")]
            } else {
                [(LIMIT, limit, "limit"), (SWAP, swap, "swap")]
            };
            for (file, value, field) in order {
                set(dir, file, &text(value), &format!("memory.{field}"))?;
            }
        }
        (Some(limit), None) => set(dir, LIMIT, &text(limit), "memory.limit")?,
        (None, Some(swap)) => set(dir, SWAP, &text(swap), "memory.swap")?,
        (None, None) => {}
    }
    if let Some(reservation) = limits.reservation().filter(|value| *value != 0) {
        set(dir, "memory.soft_limit_in_bytes", &text(reservation), "memory.reservation")?;
    }
    if let Some(tcp) = limits.kernel_tcp().filter(|value| *value != 0) {
        set(dir, "memory.kmem.tcp.limit_in_bytes", &text(tcp), "memory.kernelTCP")?;
    }
    if let Some(swappiness) = limits.swappiness() {
        if swappiness > 100 {
            return Err(Error::invalid("linux.resources.memory.swappiness", "is above 100"));
        }
        set(dir, "memory.swappiness", &swappiness.to_string(), "memory.swappiness")?;
    }
    if limits.disable_oom_killer() == Some(true) {
        set(dir, "memory.oom_control", "1", "memory.disableOOMKiller")?;
    }
    Ok(())
}

fn cpu<'a>(dir: &impl Fn(&str, &str) -> Result<&'a Path>, limits: &LinuxCpu) -> Result<()> {
    let text = |value: &dyn ToString| value.to_string();
    if let Some(shares) = limits.shares().filter(|shares| *shares != 0) {
        set(dir("cpu", "cpu.shares")?, "cpu.shares", &text(&shares), "cpu.shares")?;
    }
    let period = limits.period().filter(|period| *period != 0);
    let quota = limits.quota().filter(|quota| *quota != 0);
    if let Some(period) = period {
        let dir = dir("cpu", "cpu.period")?;
        match write(dir, "cpu.cfs_period_us", &text(&period)) {
            // With the quota that is there it would be more than the parent has: the quota goes first.
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) && quota.is_some() => {
                set(dir, "cpu.cfs_quota_us", &text(&quota.unwrap_or(-1)), "cpu.quota")?;
                set(dir, "cpu.cfs_period_us", &text(&period), "cpu.period")?;
            }
            Err(err) => return Err(Error::failed("linux.resources.cpu.period", "write cpu.cfs_period_us", err)),
            Ok(()) => {}
        }
    }
    if let Some(burst) = limits.burst() {
        if let Some(quota) = quota {
            set(dir("cpu", "cpu.quota")?, "cpu.cfs_quota_us", &text(&quota), "cpu.quota")?;
        }
        set(dir("cpu", "cpu.burst")?, "cpu.cfs_burst_us", &text(&burst), "cpu.burst")?;
    }
    if let Some(quota) = quota {
        set(dir("cpu", "cpu.quota")?, "cpu.cfs_quota_us", &text(&quota), "cpu.quota")?;
    }
    if let Some(idle) = limits.idle() {
        set(dir("cpu", "cpu.idle")?, "cpu.idle", &text(&idle), "cpu.idle")?;
    }
    if let Some(period) = limits.realtime_period().filter(|period| *period != 0) {
        set(dir("cpu", "cpu.realtimePeriod")?, "cpu.rt_period_us", &text(&period), "cpu.realtimePeriod")?;
    }
    if let Some(runtime) = limits.realtime_runtime().filter(|runtime| *runtime != 0) {
        set(dir("cpu", "cpu.realtimeRuntime")?, "cpu.rt_runtime_us", &text(&runtime), "cpu.realtimeRuntime")?;
    }
    for (value, file, field) in [(limits.cpus(), "cpuset.cpus", "cpu.cpus"), (limits.mems(), "cpuset.mems", "cpu.mems")]
    {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            set(dir("cpuset", field)?, file, value, field)?;
        }
    }
    Ok(())
}

fn block_io(dir: &Path, limits: &LinuxBlockIo) -> Result<()> {
    // BFQ has taken over from CFQ, under other names.
    let weight_file = if dir.join("blkio.weight").exists() { "blkio.weight" } else { "blkio.bfq.weight" };
    if let Some(weight) = limits.weight().filter(|weight| *weight != 0) {
        set(dir, weight_file, &weight.to_string(), "blockIO.weight")?;
    }
    if let Some(weight) = limits.leaf_weight().filter(|weight| *weight != 0) {
        set(dir, "blkio.leaf_weight", &weight.to_string(), "blockIO.leafWeight")?;
    }
    for device in limits.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let text = format!("{}:{} {weight}", device.major(), device.minor());
            set(dir, &format!("{weight_file}_device"), &text, "blockIO.weightDevice")?;
        }
        if let Some(weight) = device.leaf_weight() {
            let text = format!("{}:{} {weight}", device.major(), device.minor());
            set(dir, "blkio.leaf_weight_device", &text, "blockIO.weightDevice")?;
        }
    }
    for (devices, file, field) in [
        (limits.throttle_read_bps_device(), "blkio.throttle.read_bps_device", "blockIO.throttleReadBpsDevice"),
        (limits.throttle_write_bps_device(), "blkio.throttle.write_bps_device", "blockIO.throttleWriteBpsDevice"),
        (limits.throttle_read_iops_device(), "blkio.throttle.read_iops_device", "blockIO.throttleReadIOPSDevice"),
        (limits.throttle_write_iops_device(), "blkio.throttle.write_iops_device", "blockIO.throttleWriteIOPSDevice"),
    ] {
        for device in devices.iter().flatten() {
            let text = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            set(dir, file, &text, field)?;
        }
    }
    Ok(())
}

/// A new cpuset is empty, and nothing can be put into one that is: it and those on the way get what is above them.
pub(super) fn inherit_cpuset(root: &Path, dir: &Path) -> Result<()> {
    let way: Vec<&Path> = dir.ancestors().take_while(|dir| *dir != root && dir.starts_with(root)).collect();
    for dir in way.into_iter().rev() {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let failed =
                |err: io::Error| Error::failed(super::FIELD, format!("fill {}", dir.join(file).display()), err);
            if !fs::read_to_string(dir.join(file)).map_err(failed)?.trim().is_empty() {
                continue;
            }
            let above = dir.parent().unwrap_or(root).join(file);
            let text = fs::read_to_string(above).map_err(failed)?;
            write(dir, file, text.trim()).map_err(failed)?;
        }
    }
    Ok(())
}

pub(super) fn freeze(dir: &Path, frozen: bool) -> Result<()> {
    let state = if frozen { "FROZEN" } else { "THAWED" };
    let failed =
        |err| Error::failed("cgroup", format!("write {state} to {}", dir.join("freezer.state").display()), err);
    let until = Instant::now() + PATIENCE;
    loop {
        // A process that forks just now may be missed, so it is written again until it holds.
        write(dir, "freezer.state", state).map_err(failed)?;
        if fs::read_to_string(dir.join("freezer.state")).map_err(failed)?.trim() == state {
            return Ok(());
        }
        if Instant::now() > until {
            write(dir, "freezer.state", "THAWED").map_err(failed)?;
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        pause();
    }
}
