//! Limits: CPU, memory, huge pages, processes, and the OOM score.

use serde_json::{Value, json};

use crate::{
    document::Spec,
    error::{Result, invalid, unsupported},
    input::{Node, Policy, Resources},
};

/// The spec of a container after `UpdateContainerResources`: what the request says replaces, the rest stays. The OOM
/// score stays too, as it belongs to processes that run already. [`Spec::resources`] of the result is what a task
/// takes.
pub fn update(spec: &Value, resources: &Resources, node: &Node, policy: &Policy) -> Result<Spec> {
    let mut spec = Spec::new(spec.clone())?;
    apply(&mut spec, resources, node, policy)?;
    Ok(spec)
}

/// Limits of a process's cgroup.
pub(crate) fn apply(spec: &mut Spec, resources: &Resources, node: &Node, policy: &Policy) -> Result<()> {
    check(resources)?;
    let cpu = spec.object("linux/resources/cpu")?;
    for (name, value) in
        [("shares", resources.cpu_shares), ("quota", resources.cpu_quota), ("period", resources.cpu_period)]
    {
        if value != 0 {
            cpu.insert(name.into(), value.into());
        }
    }
    for (name, value) in [("cpus", &resources.cpuset_cpus), ("mems", &resources.cpuset_mems)] {
        if !value.is_empty() {
            cpu.insert(name.into(), value.as_str().into());
        }
    }
    memory(spec, resources, node)?;
    huge_pages(spec, resources, node, policy)?;
    if resources.pids_limit != 0 {
        spec.set("linux/resources/pids/limit", resources.pids_limit)?;
    }
    if !resources.unified.is_empty() {
        if !node.unified_cgroups {
            return unsupported("resources.unified", "the node does not have cgroup version 2");
        }
        let unified = spec.object("linux/resources/unified")?;
        for (file, value) in &resources.unified {
            unified.insert(file.clone(), value.as_str().into());
        }
    }
    Ok(())
}

/// The OOM score of a process; with the restriction, a daemon that may not lower scores asks for none below its own.
pub(crate) fn oom_score(spec: &mut Spec, score: i64, node: &Node, policy: &Policy) -> Result<()> {
    if !(-1000..=1000).contains(&score) {
        return invalid("resources.oom_score_adj", format!("{score} is not between -1000 and 1000"));
    }
    let floor = if policy.restrict_oom_score_adj { i64::from(node.oom_score_adj) } else { -1000 };
    spec.set("process/oomScoreAdj", score.max(floor))
}

/// Without a word about swap there is none: a limit on memory alone would let the container swap as much again.
fn memory(spec: &mut Spec, resources: &Resources, node: &Node) -> Result<()> {
    let memory = spec.object("linux/resources/memory")?;
    let (limit, swap) = (resources.memory_limit, resources.memory_swap_limit);
    if limit != 0 {
        memory.insert("limit".into(), limit.into());
    }
    let swap = if swap == 0 { limit } else { swap };
    if swap != 0 && node.swap_controller {
        memory.insert("swap".into(), swap.into());
    }
    Ok(())
}

fn huge_pages(spec: &mut Spec, resources: &Resources, node: &Node, policy: &Policy) -> Result<()> {
    if policy.disable_hugetlb_controller || resources.hugepage_limits.is_empty() {
        return Ok(());
    }
    if !node.hugetlb_controller {
        if policy.tolerate_missing_hugetlb_controller {
            return Ok(());
        }
        return unsupported("resources.hugepage_limits", "the node has no hugetlb controller");
    }
    let limits = spec.list("linux/resources/hugepageLimits")?;
    for (size, limit) in &resources.hugepage_limits {
        limits.retain(|have| have["pageSize"] != size.as_str());
        limits.push(json!({ "pageSize": size, "limit": limit }));
    }
    Ok(())
}

fn check(resources: &Resources) -> Result<()> {
    let field = |name: &str| format!("resources.{name}");
    for (name, value) in [("cpu_period", resources.cpu_period), ("cpu_shares", resources.cpu_shares)] {
        if value < 0 {
            return invalid(field(name), format!("{value} is negative"));
        }
    }
    let lists = [("cpuset_cpus", &resources.cpuset_cpus), ("cpuset_mems", &resources.cpuset_mems)];
    for (name, list) in lists {
        if !list.is_empty() && !list.split(',').all(is_range) {
            return invalid(field(name), format!("{list:?} is not a list such as 0-2,7"));
        }
    }
    let (limit, swap) = (resources.memory_limit, resources.memory_swap_limit);
    if limit > 0 && swap > 0 && swap < limit {
        return invalid(field("memory_swap_limit_in_bytes"), format!("{swap} is less than the memory limit {limit}"));
    }
    for (index, (size, _)) in resources.hugepage_limits.iter().enumerate() {
        let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return invalid(format!("resources.hugepage_limits[{index}].page_size"), format!("{size:?} is no size"));
        }
    }
    for file in resources.unified.keys() {
        if file.is_empty() || file.contains(['/', '\0']) || file.starts_with('.') {
            return invalid(format!("resources.unified[{file:?}]"), "is not the name of a cgroup file");
        }
    }
    Ok(())
}

fn is_range(range: &str) -> bool {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    match range.split_once('-') {
        Some((low, high)) => matches!((number(low), number(high)), (Some(low), Some(high)) if low <= high),
        None => number(range).is_some(),
    }
}
