//! The control groups of a run: one per runtime, with the daemon in one part and its pods in the other, so that the CPU of
//! every process that a runtime causes is one number, processes that are gone included.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};

/// The group of a runtime in the hierarchy that counts CPU time.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    unified: bool,
}

impl Cgroup {
    /// Makes a runtime's group; `name` is its path below the root of every hierarchy.
    pub(crate) fn make(name: &str) -> anyhow::Result<Self> {
        let (mount, unified) = accounting(&fs::read_to_string("/proc/self/mountinfo")?)?;
        let group = Self { path: mount.join(name), unified };
        let daemon = group.path.join("daemon");
        fs::create_dir_all(&daemon).with_context(|| format!("making cgroup {}", daemon.display()))?;
        Ok(group)
    }

    /// The file that a process writes its id to in order to be in the daemon's part.
    pub(crate) fn entrance(&self) -> PathBuf {
        self.path.join("daemon/cgroup.procs")
    }

    /// CPU time of everything in the group so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        if self.unified {
            let text = fs::read_to_string(self.path.join("cpu.stat"))?;
            let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
            return Ok(Duration::from_micros(usage.context("cpu.stat without usage_usec")?.parse()?));
        }
        let usage = fs::read_to_string(self.path.join("cpuacct.usage"))?;
        Ok(Duration::from_nanos(usage.trim().parse()?))
    }

    /// The processes of the daemon's part: the daemon, shims, what they start.
    pub(crate) fn daemon_processes(&self) -> anyhow::Result<Vec<u32>> {
        processes(&self.path.join("daemon"))
    }

    /// Every process of the group.
    pub(crate) fn all_processes(&self) -> Vec<u32> {
        let mut found = vec![];
        walk(&self.path, &mut |group| found.extend(processes(group).unwrap_or_default()));
        found
    }
}

fn processes(group: &Path) -> anyhow::Result<Vec<u32>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Removes the groups of a run from every hierarchy; what still has processes stays and is an error.
pub(crate) fn remove(name: &str) -> anyhow::Result<()> {
    for mount in mounts(&fs::read_to_string("/proc/self/mountinfo")?) {
        let mut groups = vec![];
        walk(&mount.path.join(name), &mut |group| groups.push(group.to_owned()));
        for group in groups.iter().rev() {
            fs::remove_dir(group).with_context(|| format!("removing cgroup {}", group.display()))?;
        }
    }
    Ok(())
}

/// Visits a group and all below it, parents first.
fn walk(group: &Path, visit: &mut impl FnMut(&Path)) {
    if !group.is_dir() {
        return;
    }
    visit(group);
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

#[derive(Debug, PartialEq)]
struct Mount {
    path: PathBuf,
    kind: String,
    options: String,
}

fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let mut tail = tail.split(' ');
        let kind = tail.next().filter(|kind| kind.starts_with("cgroup"))?.to_owned();
        let path = head.split(' ').nth(4)?.into();
        Some(Mount { path, kind, options: tail.nth(1).unwrap_or_default().to_owned() })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// Where CPU time is counted, and whether that is the unified hierarchy.
fn accounting(mountinfo: &str) -> anyhow::Result<(PathBuf, bool)> {
    let mounts = mounts(mountinfo);
    if let Some(found) = mounts.iter().find(|mount| mount.options.split(',').any(|option| option == "cpuacct")) {
        return Ok((found.path.clone(), false));
    }
    match mounts.iter().find(|mount| mount.kind == "cgroup2") {
        Some(found) => Ok((found.path.clone(), true)),
        None => bail!("no cgroup hierarchy that counts CPU time is mounted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_that_counts() {
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let v1 = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
        let other = "22 1 0:21 / /proc rw - proc proc rw\n";
        let check = |text: String, want: Option<(&str, bool)>| {
            let found = accounting(&text).ok();
            assert_eq!(found, want.map(|(path, unified)| (path.into(), unified)));
        };
        check([other, unified, v1].concat(), Some(("/sys/fs/cgroup/cpu,cpuacct", false)));
        check([other, unified].concat(), Some(("/sys/fs/cgroup/unified", true)));
        check(other.into(), None);
    }
}
