//! Where a process's cgroups are.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use kevel_mount::MountInfo;

/// The cgroups of a process: one directory in version 2, one for each controller in version 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directory in the unified hierarchy.
    pub(crate) unified: Option<PathBuf>,
    /// Directories of version 1, by controller.
    pub(crate) controllers: BTreeMap<String, PathBuf>,
}

impl Place {
    /// The place of a process.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        Ok(Self::parse(&text, hierarchies()?))
    }

    fn parse(text: &str, table: &[MountInfo]) -> Self {
        let mut place = Self::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
            if names.is_empty() {
                place.unified = locate(table, path, |mount| mount.kind == "cgroup2");
                continue;
            }
            for name in names.split(',') {
                let holds = |mount: &MountInfo| {
                    mount.kind == "cgroup" && mount.super_options.to_string_lossy().split(',').any(|word| word == name)
                };
                if let Some(dir) = locate(table, path, holds) {
                    place.controllers.insert(name.to_owned(), dir);
                }
            }
        }
        // A hierarchy of version 2 beside controllers of version 1 accounts for nothing.
        if place.controllers.contains_key("memory") || place.controllers.contains_key("cpuacct") {
            place.unified = None;
        }
        place
    }

    /// The cgroups above.
    pub(crate) fn parent(&self) -> Self {
        let up = |path: &PathBuf| path.parent().map(Path::to_owned);
        Self {
            unified: self.unified.as_ref().and_then(up),
            controllers: self.controllers.iter().filter_map(|(name, path)| Some((name.clone(), up(path)?))).collect(),
        }
    }

    /// A file of a controller of version 1.
    pub(crate) fn v1(&self, controller: &str, file: &str) -> Option<PathBuf> {
        self.controllers.get(controller).map(|dir| dir.join(file))
    }
}

/// The mounts of cgroups. They are there when the daemon starts and stay; the whole table has a line for every mount of
/// every pod, which is too much to read for each container's statistics.
fn hierarchies() -> io::Result<&'static [MountInfo]> {
    static HIERARCHIES: OnceLock<Vec<MountInfo>> = OnceLock::new();
    if let Some(found) = HIERARCHIES.get() {
        return Ok(found);
    }
    let mut table = kevel_mount::mount_table().map_err(io::Error::other)?;
    table.retain(|mount| mount.kind.starts_with("cgroup"));
    Ok(HIERARCHIES.get_or_init(|| table))
}

/// The directory of a cgroup below the mount that shows it.
fn locate(table: &[MountInfo], path: &str, holds: impl Fn(&MountInfo) -> bool) -> Option<PathBuf> {
    let mount = table.iter().rev().find(|mount| holds(mount))?;
    let inside = Path::new(path).strip_prefix(&mount.root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
    Some(mount.mount_point.join(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &[u8] = b"30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:29 /outer /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const V2: &[u8] = b"30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn both_versions() {
        let table = |text| kevel_mount::info::parse(text).unwrap();
        let place = Place::parse("0::/x\n3:memory:/outer/k/c\n2:cpu,cpuacct:/k/c\n", &table(V1));
        assert_eq!(place.unified, None);
        assert_eq!(place.v1("memory", "f").unwrap(), Path::new("/sys/fs/cgroup/memory/k/c/f"));
        assert_eq!(place.v1("cpuacct", "f").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/k/c/f"));
        assert_eq!(place.parent().v1("cpu", "f").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/k/f"));
        let place = Place::parse("0::/k/c\n", &table(V2));
        assert_eq!(place.unified.unwrap(), Path::new("/sys/fs/cgroup/k/c"));
    }

    #[test]
    fn own_place() {
        let place = Place::of(std::process::id()).unwrap();
        assert!(place.unified.is_some() || !place.controllers.is_empty());
    }
}
