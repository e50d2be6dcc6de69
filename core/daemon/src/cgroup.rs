//! `[cgroup] path`: the cgroup that the daemon moves itself into, made if it is not there. Shims that it starts inherit
//! it, unless their options name another.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Where hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// Checks the key.
pub(crate) fn check(path: &str) -> anyhow::Result<()> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_empty() || (path.starts_with('/') && path.len() > 1 && plain) {
        return Ok(());
    }
    bail!("cgroup.path: {path:?} is not an absolute path below the root");
}

/// Moves this process. Does nothing for an empty path.
pub(crate) fn join(path: &str) -> anyhow::Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let table = fs::read_to_string("/proc/self/cgroup").context("reading the cgroups of the daemon")?;
    for place in hierarchies(&table) {
        enter(&place, path).with_context(|| format!("cgroup.path: moving to {path:?} in {}", place.display()))?;
    }
    Ok(())
}

/// The directories of the hierarchies: the unified one where there is no other, else those of controllers (systemd keeps
/// its own hierarchy in order by itself).
fn hierarchies(table: &str) -> Vec<PathBuf> {
    let controllers = table.lines().filter_map(|line| line.split(':').nth(1));
    let named: Vec<_> = controllers.filter(|name| !name.is_empty() && !name.starts_with("name=")).collect();
    match named.is_empty() {
        true => vec![PathBuf::from(ROOT)],
        false => named.into_iter().map(|name| Path::new(ROOT).join(name)).filter(|place| place.is_dir()).collect(),
    }
}

fn enter(place: &Path, path: &str) -> io::Result<()> {
    let mut group = place.to_owned();
    for part in Path::new(path.trim_start_matches('/')) {
        let parent = group.clone();
        group.push(part);
        match fs::create_dir(&group) {
            // A new cpuset (version 1) is empty, and nothing can run in it.
            Ok(()) => inherit(&parent, &group)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

fn inherit(parent: &Path, group: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = group.join(file);
        match fs::read_to_string(&own) {
            Ok(text) if text.trim().is_empty() && !place_is_unified(group) => {
                fs::write(&own, fs::read_to_string(parent.join(file))?)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Version 2 inherits by itself, and has files that version 1 has not.
fn place_is_unified(group: &Path) -> bool {
    group.join("cgroup.controllers").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for good in ["", "/kevel", "/a.slice/kevel"] {
            check(good).unwrap();
        }
        for bad in ["/", "kevel", "/a/../b", ".."] {
            assert_eq!(
                check(bad).unwrap_err().to_string(),
                format!("cgroup.path: {bad:?} is not an absolute path below the root")
            );
        }
    }

    #[test]
    fn hierarchies_of_both_versions() {
        assert_eq!(hierarchies("0::/user.slice\n"), [Path::new(ROOT)]);
        assert_eq!(hierarchies("4:no-such:/\n1:name=systemd:/\n0::/\n"), Vec::<PathBuf>::new());
    }
}
